"""Turns messages into the objects that a chat template takes, repaired for what that template does not support.

Ollama gives llama.cpp messages as OpenAI's API has them, and llama.cpp repairs them: a system message that the template
ignores goes in front of the next message, arguments of calls are a text or an object, content is a text or a list of
parts. The thinking of earlier turns is not passed on.
"""

import json
from collections.abc import Sequence
from typing import Any

from puna.errors import TemplateRefusedError
from puna.go import json as gojson
from puna.messages import Message
from puna.prompt import media_markers
from puna.prompt.jinja.probe import Abilities


def conversation(messages: Sequence[Message], abilities: Abilities, *, developer: bool = False) -> list[dict[str, Any]]:
    """Return messages as a template takes them. `developer`: that role stays; otherwise it becomes "system".

    Images are markers "[img-N]" after the text or in their places, numbered from 0 over all messages. Raises
    TemplateRefusedError.
    """
    out: list[dict[str, Any]] = []
    number = 0
    for message in messages:
        text = message.content
        if message.media_at:
            text = "".join(media_markers.marked(message, number))
        elif message.media:
            text += "".join([f"[img-{number + index}]" for index in range(len(message.media))])
        number += len(message.media)
        # Only the templates of gpt-oss know the role developer.
        role = "system" if message.role == "developer" and not developer else message.role
        out.append(_as_dict(message, role, text, abilities))
    return out if abilities.system else _without_system(out)


def _as_dict(message: Message, role: str, text: str, abilities: Abilities) -> dict[str, Any]:
    # A template that takes both gets the text, as from llama.cpp.
    content: Any = text
    if abilities.content_parts:
        content = [{"type": "text", "text": text}]
    out: dict[str, Any] = {"role": role, "content": content}
    if message.tool_name:
        out["name"] = message.tool_name
    if message.tool_call_id:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        calls = out["tool_calls"] = []
        for call in message.tool_calls:
            arguments: Any = arguments_text(call.arguments)
            # Templates that iterate over arguments need an object; others print a text as it is.
            if abilities.object_arguments:
                arguments = json.loads(arguments)
            made: dict[str, Any] = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
            if call.id:
                made["id"] = call.id
            calls.append(made)
    return out


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not messages or messages[0]["role"] != "system":
        return messages
    first, rest = messages[0], messages[1:]
    if rest:
        # llama.cpp joins the texts of two JSON values here, and fails on lists with this message.
        if not (isinstance(first["content"], str) and isinstance(rest[0]["content"], str)):
            raise TemplateRefusedError("json type must be string, but is array")
        rest[0] = rest[0] | {"content": first["content"] + "\n" + rest[0]["content"]}
    return rest


def arguments_text(text: str) -> str:
    """Return the arguments of a call as Go writes JSON. Raises TemplateRefusedError if they are not JSON."""
    try:
        return gojson.dumps(json.loads(text, parse_int=float) if text else {})
    except ValueError as error:
        raise TemplateRefusedError(f"Failed to parse tool call arguments as JSON: {error}") from error
