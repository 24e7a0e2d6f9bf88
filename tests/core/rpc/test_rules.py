"""Typed fields of requests have bounds, which the .proto files state."""

import math
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from puna.errors import InvalidRequestError
from puna.rpc import rules
from puna_client.v1 import chat_pb2, embed_pb2, message_pb2, options_pb2

PROTO = Path(__file__).parents[3] / "proto" / "puna" / "v1"
ALL = [(message, field, *bounds) for message, fields in rules.BOUNDS.items() for field, bounds in fields.items()]
IDS = [f"{message.rpartition('.')[2]}.{field}" for message, field, *_ in ALL]


def made(message, field, value):
    """Return a message of this type with one field set."""
    from google.protobuf import message_factory

    kind = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(message))
    return kind(**{field: value})


@pytest.mark.parametrize(("message", "field", "least", "most"), ALL, ids=IDS)
def test_values_at_the_bounds_pass_and_beyond_are_refused(message, field, least, most):
    floats = made(message, field, 1).DESCRIPTOR.fields_by_name[field].cpp_type == 6
    for value in (least, most):
        if math.isfinite(value):
            rules.check(made(message, field, int(value)))
    beyond = [value for value in (least - 1, most + 1) if math.isfinite(value)]
    for value in beyond + ([math.nan, math.inf, -math.inf] if floats else []):
        with pytest.raises(InvalidRequestError, match=f"^options.{field}: ") as refused:
            rules.check(made(message, field, value if floats else int(value)), "options.")
        assert refused.value.info["field"] == f"options.{field}"
        assert refused.value.info["limit"]


@pytest.mark.parametrize(("message", "field", "least", "most"), ALL, ids=IDS)
def test_the_comment_of_the_field_states_the_bounds(message, field, least, most):
    file = descriptor_pool.Default().FindMessageTypeByName(message).file.name.rpartition("/")[2]
    text = (PROTO / file).read_text()
    body = text[text.index(f"message {message.rpartition('.')[2]} {{") :]
    comment = re.search(rf"((?:  //[^\n]*\n)+)  (?:optional )?\w+ {field} = ", body)[1].replace("\n  //", "")
    said = "a finite number" if math.isinf(least) else f"at least {least}"
    said = said if math.isinf(most) else f"between {least} and {most}"
    assert said in comment


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (options_pb2.RequestOptions(thinking=77), "thinking"),
        (embed_pb2.EmbedRequest(encoding=77), "encoding"),
        (chat_pb2.ChatRequest(tool_choice=message_pb2.ToolChoice(mode=-3)), "tool_choice.mode"),
        (chat_pb2.ChatRequest(options=options_pb2.RequestOptions(thinking=77)), "options.thinking"),
    ],
)
def test_an_unknown_value_of_an_enum_is_refused(message, field):
    with pytest.raises(InvalidRequestError, match=f"^{re.escape(field)}: .* has no value"):
        rules.check(message)


def test_unset_fields_and_lists_pass():
    rules.check(options_pb2.RequestOptions(options_json="{}", sampling=options_pb2.SamplingOptions(stop=["a"])))
