"""Messages, tools and images, made of Python values."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from puna_client.answers import ToolCall
from puna_client.v1.message_pb2 import ChatMessage, Tool
from puna_client.v1.options_pb2 import Media

Json: TypeAlias = Any
"""A value that `json.dumps` takes."""
Conversation: TypeAlias = str | ChatMessage | Iterable[ChatMessage | str]
"""A message, or several. A str is a message of the user."""


def user(text: str, *media: bytes | Path) -> ChatMessage:
    """Return a message of the user, with images or sounds: the content of files, or paths."""
    files = (Media(data=each.read_bytes() if isinstance(each, Path) else each) for each in media)
    return ChatMessage(role="user", content=text, media=files)


def system(text: str) -> ChatMessage:
    """Return a system message."""
    return ChatMessage(role="system", content=text)


def tool_result(call: ToolCall, result: Json) -> ChatMessage:
    """Return the message with the result of a tool call. A result that is no str is written as JSON."""
    text = result if isinstance(result, str) else json.dumps(result)
    return ChatMessage(role="tool", tool_name=call.name, tool_call_id=call.id, content=text)


def tool(name: str, description: str, parameters: Mapping[str, Json]) -> Tool:
    """Return a tool. `parameters` is a JSON Schema of an object."""
    return Tool(name=name, description=description, parameters_json=json.dumps(parameters))


def conversation(given: Conversation) -> list[ChatMessage]:
    """Return the messages."""
    listed = [given] if isinstance(given, str | ChatMessage) else given
    return [user(each) if isinstance(each, str) else each for each in listed]
