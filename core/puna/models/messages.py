"""Preset messages as they stand in a layer: a JSON array of messages."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from puna import gojson
from puna.messages import Message, ToolCall


def loads(data: bytes) -> tuple[Message, ...]:
    """Read the layer. Raises ValueError when it is no array of messages."""
    value = json.loads(data)
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise ValueError("messages are a JSON array of objects")
    return tuple(_message(each) for each in value)


def dumps(messages: Sequence[Message]) -> bytes:
    """Write the layer as the reference does, down to the newline. Roles are written in lower case."""
    return gojson.dumps([_plain(message) for message in messages]).encode() + b"\n"


def _message(value: Mapping[str, Any]) -> Message:
    calls = value.get("tool_calls") or []
    return Message(
        role=str(value.get("role") or ""),
        content=str(value.get("content") or ""),
        thinking=str(value.get("thinking") or ""),
        media=tuple(_bytes(each) for each in value.get("images") or []),
        tool_calls=tuple(_call(each) for each in calls if isinstance(each, Mapping)),
        tool_name=str(value.get("tool_name") or ""),
        tool_call_id=str(value.get("tool_call_id") or ""),
    )


def _bytes(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise ValueError("an image is no base64") from error


def _call(value: Mapping[str, Any]) -> ToolCall:
    function = value.get("function")
    function = function if isinstance(function, Mapping) else {}
    index = function.get("index")
    return ToolCall(
        id=str(value.get("id") or ""),
        index=index if isinstance(index, int) else 0,
        name=str(function.get("name") or ""),
        arguments=gojson.dumps(function.get("arguments") or {}),
    )


def _plain(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role.lower(), "content": message.content}
    if message.thinking:
        value["thinking"] = message.thinking
    if message.media:
        value["images"] = [base64.b64encode(each).decode() for each in message.media]
    if message.tool_calls:
        value["tool_calls"] = [_plain_call(call) for call in message.tool_calls]
    if message.tool_name:
        value["tool_name"] = message.tool_name
    if message.tool_call_id:
        value["tool_call_id"] = message.tool_call_id
    return value


def _plain_call(call: ToolCall) -> dict[str, Any]:
    arguments = json.loads(call.arguments or "{}", parse_int=float)
    if isinstance(arguments, dict):  # Go keeps the order of the arguments, but sorts inside them
        inner = ",".join(
            f"{gojson.string(key)}:{gojson.dumps(each, sort_keys=True)}" for key, each in arguments.items()
        )
        arguments = gojson.Raw("{" + inner + "}")
    function = {"index": call.index, "name": call.name, "arguments": arguments}
    return ({"id": call.id} if call.id else {}) | {"function": function}
