"""Schemas of pydantic's types: pydantic reads every text that they allow, or the type is on a list."""

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import json
import pathlib
import uuid
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field
from tests.plugins.llama_cpp.random_walk import TooLongError, random_text, schema_violations

from puna.backend import InvalidRequestError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Number(enum.IntEnum):
    ONE = 1
    TWO = 2


class Part(BaseModel):
    x: int = 3
    y: str | None = None


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    good: bool = True


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Pair(NamedTuple):
    a: int
    b: str = "x"


@dataclasses.dataclass
class Record:
    a: int
    b: list[str] = dataclasses.field(default_factory=list)


READABLE = {
    "scalars": (int, float, str, bool, None, bytes, Any, decimal.Decimal, uuid.UUID, Color, Number),
    "times": (dt.date, dt.datetime, dt.time, dt.timedelta, pydantic.AwareDatetime),
    "uuids": (pydantic.UUID1, pydantic.UUID3, pydantic.UUID4, pydantic.UUID5, pydantic.UUID7),
    "networks": (
        *(ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network),
        *(ipaddress.IPv4Interface, ipaddress.IPv6Interface),
        *(pydantic.IPvAnyAddress, pydantic.IPvAnyNetwork, pydantic.IPvAnyInterface),
    ),
    "strings": (pathlib.Path, pydantic.SecretStr, pydantic.SecretBytes, pydantic.Base64Bytes, pydantic.ByteSize),
    "numbers": (
        *(pydantic.PositiveInt, pydantic.NegativeInt, pydantic.NonNegativeInt, pydantic.NonPositiveInt),
        *(pydantic.PositiveFloat, pydantic.FiniteFloat, pydantic.StrictInt, pydantic.StrictBool),
        *(pydantic.conint(ge=3, lt=10, multiple_of=2), pydantic.confloat(gt=0, lt=1)),
        *(pydantic.confloat(multiple_of=0.5, ge=0, le=100), pydantic.conint(multiple_of=86400)),
    ),
    "constrained": (
        *(pydantic.constr(min_length=2, max_length=5), pydantic.constr(pattern=r"^\d{3}$")),
        *(pydantic.constr(max_length=2**33), pydantic.conlist(int, min_length=1, max_length=3)),
        *(pydantic.conset(int, min_length=1, max_length=1), Annotated[list[int], Field(max_length=2)]),
    ),
    "collections": (
        *(list[int], list, tuple[int, str], tuple[int, ...], tuple[()], Sequence[int], Iterable[int]),
        *(set[Literal["a", "b", "c"]], set[Color], dict[str, int], dict[Literal["a", "b"], int], dict[Color, int]),
        *(dict[pydantic.constr(max_length=3), int], dict[pydantic.constr(pattern="^[a-z]+$"), int]),
        *(dict[uuid.UUID, int], list[dict[str, list[int]]], pydantic.JsonValue),
    ),
    "unions": (
        *(Literal["a", 1, None, True], Literal[1234567890123], int | None, int | str, Cat | Dog | Part),
        Annotated[Cat | Dog, Field(discriminator="kind")],
    ),
    "models": (Part, Node, Closed, Open, Pair, Record, pydantic.RootModel[list[int]]),
}
"""Values that may be written are valid for pydantic too."""
VALID = {
    "more than the schema says": (
        *(pydantic.AnyUrl, pydantic.HttpUrl, pydantic.FtpUrl, pydantic.PostgresDsn, pydantic.EmailStr),
        *(pydantic.NameEmail, pydantic.FilePath, pydantic.DirectoryPath, pydantic.NewPath, pydantic.Base64Str),
        *(pydantic.PastDate, pydantic.FutureDate, pydantic.NaiveDatetime, pydantic.ImportString),
        *(pydantic.Json, pydantic.Json[int], dict[int, str], pydantic.condecimal(max_digits=5, decimal_places=2)),
    )
}
"""The schema holds, and pydantic demands more than it says: a file that exists, a date that is past."""
REFUSED = {
    "uniqueItems": (set[int], frozenset[str], pydantic.conset(int, min_length=1, max_length=3)),
    "minimum": (pydantic.conint(ge=2**60),),
}
"""Types that no grammar of bounded size can hold, and the keywords that they are refused by."""


def cases(families):
    return [
        pytest.param(each, id=f"{family}-{index}")
        for family, types in families.items()
        for index, each in enumerate(types)
    ]


def model(annotation):
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else pydantic.create_model("Model", value=(annotation, ...))


@pytest.mark.parametrize("annotation", cases(READABLE))
def test_what_may_be_written_is_read(annotation):
    made = model(annotation)
    schema = made.model_json_schema()
    assert schema_violations(schema, seeds=2) == []
    for seed in range(3):
        try:
            text = random_text("json_schema", json.dumps(schema), seed)
        except TooLongError:
            continue
        made.model_validate_json(text)


@pytest.mark.parametrize("annotation", cases(VALID))
def test_what_may_be_written_is_valid(annotation):
    assert schema_violations(model(annotation).model_json_schema(), seeds=2) == []


@pytest.mark.parametrize(("keyword", "annotation"), [(word, each) for word, types in REFUSED.items() for each in types])
def test_what_cannot_be_enforced_is_refused_by_its_keyword(keyword, annotation):
    with pytest.raises(InvalidRequestError, match=keyword):
        random_text("json_schema", json.dumps(model(annotation).model_json_schema()))
