"""Reads calls that are JSON objects as Go decodes them into a struct: keys in any case, errors in Go's words.

Go goes on after a value of a wrong type and reports the first such value at the end, while arguments that are no object
are reported at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from puna.errors import BackendFailedError
from puna.go.space import SPACE
from puna.messages import Tool
from puna.prompt.builtin.notation import json_text

_PLAIN: Final = (
    'struct { Name string "json:\\"name\\""; Arguments api.ToolCallFunctionArguments "json:\\"arguments\\"" }'
)
_KINDS: Final = ((str, "string"), (bool, "bool"), (list, "array"), (tuple, "object"))


def read_call(raw: str, tools: Sequence[Tool]) -> tuple[str, dict[str, Any]]:  # noqa: ARG001
    """Return the name and the arguments of a call. Raises BackendFailedError with Go's text."""
    try:
        return _read(raw, "api.ToolCallFunction", "ToolCallFunction", numbered=True)
    except ValueError as error:
        raise BackendFailedError(str(error)) from None


def read_named_call(raw: str, tools: Sequence[Tool]) -> tuple[str, dict[str, Any]]:  # noqa: ARG001
    """Return the same for the families whose parser in Ollama demands a name and prefixes errors."""
    try:
        name, arguments = _read(raw.strip(SPACE), _PLAIN, "", numbered=False)
    except ValueError as error:
        raise BackendFailedError(f"failed to parse JSON: {error}") from None
    if not name:
        raise BackendFailedError("empty function name")
    return name, arguments


@dataclass(frozen=True, slots=True)
class _Number:
    """A number as it was written."""

    text: str


@dataclass(slots=True)
class _Fields:
    """The part of a call that has been read."""

    name: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""
    """Go's error for the first value of a wrong type."""


def _read(raw: str, type_: str, struct: str, *, numbered: bool) -> tuple[str, dict[str, Any]]:
    """Return name and arguments. `numbered`: Go's struct has a field for the index of the call too."""
    members = json_text.decoded(raw, _Number, tuple)
    if members is None:
        return "", {}
    if not isinstance(members, tuple):
        raise ValueError(f"json: cannot unmarshal {_kind(members)} into Go value of type {type_}")
    found = _Fields()
    for key, value in members:
        # Go matches the keys of structs without regard to case.
        match key.casefold():
            case "name" if isinstance(value, str):
                found.name = value
            case "name" if value is not None:
                found.wrong = found.wrong or _mismatch(_kind(value), f"{struct}.name", "string")
            case "index" if numbered and value is not None and not _is_index(value):
                kind = f"number {value.text}" if isinstance(value, _Number) else _kind(value)
                found.wrong = found.wrong or _mismatch(kind, f"{struct}.index", "int")
            # Arguments decode themselves in Go, so their error comes at once and before any other.
            case "arguments":
                found.arguments = _arguments(value, f"{struct}.arguments")
    if found.wrong:
        raise ValueError(found.wrong)
    return found.name, found.arguments


def _arguments(value: object, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, tuple):
        raise ValueError(json_text.NO_OBJECT)
    return {key: _plain(each, place) for key, each in value}


def _plain(value: object, place: str) -> object:
    match value:
        case _Number(text):
            number = float(text)
            if math.isinf(number):
                raise ValueError(_mismatch(f"number {text}", place, "float64"))
            return number
        case tuple():
            return {key: _plain(each, place) for key, each in value}
        case list():
            return [_plain(each, place) for each in value]
    return value


def _is_index(value: object) -> bool:
    if not isinstance(value, _Number) or not value.text.lstrip("-").isdecimal():
        return False
    return -(2**63) <= int(value.text) < 2**63


def _mismatch(kind: str, place: str, type_: str) -> str:
    return f"json: cannot unmarshal {kind} into Go struct field {place} of type {type_}"


def _kind(value: object) -> str:
    """Return Go's word for the type of a JSON value."""
    return next((name for type_, name in _KINDS if isinstance(value, type_)), "number")
