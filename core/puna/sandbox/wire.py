"""The messages between core and worker: JSON, each preceded by its length in four bytes, big-endian.

The core believes nothing that a worker sends: functions that end in `_in` and run in the core check the type and length
of every value. Media are sent as their number only, since templates write markers for them.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final, TypeAlias

from puna.go.template.facts import LONGEST_TAG, Facts
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.layout import CallSyntax, JsonCall, OutputLayout, TaggedCall

JSON: TypeAlias = Any
"""Any JSON value."""
HEADER: Final = struct.Struct(">I")
SLACK: Final = 1 << 20
"""Bytes that an answer may have beyond the rendered text."""
MOST_MARKERS: Final = 64


class InvalidAnswerError(Exception):
    """A worker sent something invalid."""


def pack(value: JSON) -> bytes:
    """Return a message with its length. Lone surrogates are preserved."""
    # surrogatepass: a client may send lone surrogates in JSON, and the template must see them as they are.
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return HEADER.pack(len(data)) + data


def unpack(data: bytes | bytearray | memoryview) -> JSON:
    """Read a message without its length. Raises InvalidAnswerError."""
    try:
        # Decoded first, since json.loads refuses surrogates in bytes.
        return json.loads(str(data, "utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise InvalidAnswerError("no JSON") from error


def text(value: JSON, longest: int | None = None) -> str:
    """Return a text. Raises InvalidAnswerError for anything else, or a longer one."""
    if not isinstance(value, str) or (longest is not None and len(value) > longest):
        raise InvalidAnswerError("no text, or one that is too long")
    return value


def messages_out(messages: Sequence[Message]) -> JSON:
    """Return messages as JSON."""
    return [
        [
            each.role,
            each.content,
            each.thinking,
            len(each.media),
            each.media_at,
            [[call.name, call.arguments, call.index, call.id] for call in each.tool_calls],
            each.tool_name,
            each.tool_call_id,
        ]
        for each in messages
    ]


def messages_in(value: JSON) -> list[Message]:
    """Return the messages, with nothing in their media."""
    return [
        Message(
            role=role,
            content=content,
            thinking=thinking,
            media=(b"",) * media,
            media_at=tuple(places),
            tool_calls=tuple(
                ToolCall(name=name, arguments=arguments, index=index, id=id_) for name, arguments, index, id_ in calls
            ),
            tool_name=tool_name,
            tool_call_id=tool_call_id,
        )
        for role, content, thinking, media, places, calls, tool_name, tool_call_id in value
    ]


def tools_out(tools: Sequence[Tool]) -> JSON:
    """Return tools as JSON."""
    return [[each.name, each.description, each.parameters, each.type, each.items] for each in tools]


def tools_in(value: JSON) -> list[Tool]:
    """Return the tools."""
    return [
        Tool(name=name, description=description, parameters=parameters, type=type_, items=items)
        for name, description, parameters, type_, items in value
    ]


def think_out(think: Think | None) -> JSON:
    """Return the setting of a model's thinking as JSON."""
    return None if think is None else [think.on, think.level]


def think_in(value: JSON) -> Think | None:
    """Return the setting of a model's thinking."""
    return None if value is None else Think(*value)


def facts_out(facts: Facts) -> JSON:
    """Return the facts of a Go template as JSON."""
    return [sorted(facts.uses), facts.thinking_tags, facts.tool_tag, facts.full_tool_round_trip]


def facts_in(value: JSON) -> Facts:
    """Return the facts of a Go template. Raises InvalidAnswerError."""
    try:
        uses, tags, tool_tag, round_trip = value
        if not isinstance(round_trip, bool):
            raise InvalidAnswerError("no boolean")
        opening, closing = tags or ("", "")
        pair = (text(opening, LONGEST_TAG), text(closing, LONGEST_TAG))
        names = frozenset(text(each, LONGEST_TAG) for each in uses)
        return Facts(names, pair if tags else None, text(tool_tag, LONGEST_TAG), round_trip)
    except (TypeError, ValueError) as error:
        raise InvalidAnswerError("no facts") from error


def layout_out(layout: OutputLayout) -> JSON:
    """Return a derived layout as JSON. `literals` are left out: they are never derived."""
    return asdict(layout) | {"call_syntax": layout.call_syntax.value, "literals": None}


def layout_in(value: JSON) -> OutputLayout:
    """Return a derived layout. Raises InvalidAnswerError."""
    try:
        members = dict(value)
        # An unknown value raises ValueError, like every other fault that is caught below.
        members["call_syntax"] = CallSyntax(members["call_syntax"])
        members["json"] = _made(JsonCall, members["json"])
        members["tagged"] = _made(TaggedCall, members["tagged"])
        if members.pop("literals") is not None:
            raise InvalidAnswerError("literals are never derived")
        layout: OutputLayout = _made(OutputLayout, members)
        return layout
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidAnswerError("no layout") from error


def _made(kind: type[Any], members: dict[str, Any]) -> Any:  # noqa: ANN401
    # The defaults of the dataclass tell the type that each member must have, so a new field needs no line here.
    defaults = {each.name: each.default for each in fields(kind)}
    for name, value in members.items():
        default = defaults[name]
        if isinstance(default, tuple):
            if not isinstance(value, list) or len(value) > MOST_MARKERS:
                raise InvalidAnswerError("no list of markers")
            members[name] = tuple(text(each, LONGEST_TAG) for each in value)
        elif default is None:
            members[name] = None if value is None else text(value, LONGEST_TAG)
        elif isinstance(default, str) or name == "name":
            text(value, LONGEST_TAG)
        # Not isinstance, because True is an instance of int.
        elif type(value) is not type(default):
            raise InvalidAnswerError("a value of another type")
    return kind(**members)
