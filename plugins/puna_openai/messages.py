"""Writes a conversation in OpenAI's form.

Ollama's clients send tool calls and their results without ids, and OpenAI's API needs them. A missing id of a call is
made from its place in the conversation, so that equal conversations give equal requests and an upstream can cache
their prefix. A result without an id belongs to the oldest call of its tool that has no result yet.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from puna.backend import ChatInput, ChatMessage, ChatTool, InvalidRequestError, UnsupportedError

Part: TypeAlias = dict[str, Any]

IMAGES: Final = ((b"\x89PNG\r\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))
"""The first bytes of image files, with their media types."""


def conversation(chat: ChatInput, *, vision: bool, audio: bool) -> list[Part]:
    """Return the messages. Raises UnsupportedError for media that the upstream does not take."""
    written: list[Part] = []
    # Calls without a result so far, as pairs of tool and id.
    open_calls: list[tuple[str, str]] = []
    for place, message in enumerate(chat.messages):
        if message.role == "tool":
            written.append({"role": "tool", "content": message.content, "tool_call_id": _answered(message, open_calls)})
            continue
        one: Part = {"role": message.role, "content": _content(message, vision=vision, audio=audio)}
        if message.tool_calls:
            ids = [call.id or f"call_{place}_{index}" for index, call in enumerate(message.tool_calls)]
            open_calls += [(call.name, id_) for call, id_ in zip(message.tool_calls, ids, strict=True)]
            one["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
                for call, id_ in zip(message.tool_calls, ids, strict=True)
            ]
        written.append(one)
    return written


def tools(offered: Sequence[ChatTool]) -> list[Part]:
    """Return the tools. Raises InvalidRequestError if the parameters of one are no JSON object."""
    return [{"type": "function", "function": _function(tool)} for tool in offered]


def tool_choice(choice: str) -> str | Part:
    """Return the rule for tool calls."""
    rule, _, name = choice.partition(":")
    return {"type": "function", "function": {"name": name}} if rule == "tool" else choice


def _function(tool: ChatTool) -> Part:
    function: Part = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    try:
        parameters = json.loads(tool.parameters_json or "{}")
    except (ValueError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict):
        raise InvalidRequestError(f"the parameters of tool {tool.name!r} must be a JSON object")
    if parameters:
        function["parameters"] = parameters
    return function


def _answered(message: ChatMessage, open_calls: list[tuple[str, str]]) -> str:
    """Return the id of the call that a message answers, and take it from the open calls."""
    for call in open_calls:
        name, id_ = call
        if id_ == message.tool_call_id or (not message.tool_call_id and message.tool_name in ("", name)):
            open_calls.remove(call)
            return id_
    return message.tool_call_id or f"call_{message.tool_name}"


def _content(message: ChatMessage, *, vision: bool, audio: bool) -> str | list[Part] | None:
    if not message.media:
        # OpenAI's API wants null, and not an empty text, beside tool calls.
        return message.content or (None if message.tool_calls else "")
    # Without places, media follow the text.
    places = message.media_at or (len(message.content),) * len(message.media)
    parts: list[Part] = []
    for begin, end, data in zip((0, *places), places, message.media, strict=False):
        parts += _text(message.content[begin:end])
        parts.append(_medium(data, vision=vision, audio=audio))
    return parts + _text(message.content[places[-1] :])


def _text(text: str) -> list[Part]:
    return [{"type": "text", "text": text}] if text else []


def _medium(data: bytes, *, vision: bool, audio: bool) -> Part:
    encoded = base64.b64encode(data).decode()
    if sound := _sound(data):
        if not audio:
            raise UnsupportedError("this model does not take sounds")
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": sound}}
    if not vision:
        raise UnsupportedError("this model does not take images")
    return {"type": "image_url", "image_url": {"url": f"data:{_image(data)};base64,{encoded}"}}


def _image(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for begin, kind in IMAGES:
        if data.startswith(begin):
            return kind
    raise InvalidRequestError("an image must be a PNG, JPEG, GIF or WebP file")


def _sound(data: bytes) -> str:
    """Return the format of a sound; empty if the data is none."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    # An MP3 file begins with a tag, or with a frame whose first eleven bits are set. A JPEG file has 0xFFD8 there.
    return "mp3" if data[:3] == b"ID3" or data[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2") else ""
