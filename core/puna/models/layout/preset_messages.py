"""The layer of preset messages: a JSON array of messages."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from puna.go import json as gojson
from puna.go import json_text
from puna.limits import LARGEST_INT32
from puna.messages import Message, ToolCall


def loads(data: bytes) -> tuple[Message, ...]:
    """Read the layer. Raises ValueError if it is not an array of messages."""
    value = json_text.loads(data)
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise ValueError("messages are a JSON array of objects")
    return tuple(_message(each) for each in value)


def dumps(messages: Sequence[Message]) -> bytes:
    """Write the layer as Ollama does, down to the newline. Roles are written in lower case."""
    return gojson.dumps([_plain(message) for message in messages]).encode() + b"\n"


def _message(value: Mapping[str, Any]) -> Message:
    return Message(
        role=_text(value, "role"),
        content=_text(value, "content"),
        thinking=_text(value, "thinking"),
        media=tuple(_bytes(each) for each in _list(value, "images")),
        tool_calls=tuple(_call(each) for each in _list(value, "tool_calls") if isinstance(each, Mapping)),
        tool_name=_text(value, "tool_name"),
        tool_call_id=_text(value, "tool_call_id"),
    )


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return gojson.replace_lone_surrogates(text) if isinstance(text, str) else ""


def _list(value: Mapping[str, Any], key: str) -> list[Any]:
    items = value.get(key)
    return items if isinstance(items, list) else []


def _bytes(text: object) -> bytes:
    try:
        # validate: without it Python skips characters that are not base64 and returns other bytes.
        return base64.b64decode(str(text), validate=True)
    except ValueError as error:
        raise ValueError("an image is no base64") from error


def _call(value: Mapping[str, Any]) -> ToolCall:
    function = value.get("function")
    function = function if isinstance(function, Mapping) else {}
    index = json_text.int64(function.get("index"))
    return ToolCall(
        id=_text(value, "id"),
        # The API carries the index in 32 bits.
        index=index if index <= LARGEST_INT32 else 0,
        name=_text(function, "name"),
        arguments=gojson.dumps(function.get("arguments") or {}),
    )


def _plain(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": message.content}
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
    arguments = json_text.loads(call.arguments or "{}", integer=float)
    if isinstance(arguments, dict):  # Go keeps the order of the arguments, but sorts inside them
        inner = ",".join(
            f"{gojson.string(key)}:{gojson.dumps(each, sort_keys=True)}" for key, each in arguments.items()
        )
        arguments = gojson.Raw("{" + inner + "}")
    function = {"index": call.index, "name": call.name, "arguments": arguments}
    return ({"id": call.id} if call.id else {}) | {"function": function}
