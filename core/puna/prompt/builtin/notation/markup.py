"""Parts of prompts that several families share: JSON with spaces, markers for media, values with bare keys."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from puna.go import json as gojson
from puna.go.template.formatting import text as go_text
from puna.messages import Message
from puna.prompt import media_markers, tool_schema

# Strings are matched as a whole, so that colons and commas within them stay as they are.
_PUNCTUATION: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[:,]')


def spaced(value: object) -> str:
    """Return a value as JSON with a space after each colon and comma. The order of members stays."""
    return _PUNCTUATION.sub(lambda m: m[0] if m[0][0] == '"' else m[0] + " ", gojson.dumps(value))


def unescaped(value: object) -> str:
    """Return the same with `<`, `>` and `&` as themselves instead of Go's escapes."""
    return re.sub(
        # Escaped backslashes are matched first: in `\\u003c` the backslash is text, and no escape follows it.
        r"\\\\|\\u003c|\\u003e|\\u0026",
        lambda m: {"\\u003c": "<", "\\u003e": ">", "\\u0026": "&"}.get(m[0], m[0]),
        spaced(value),
    )


def parameters(kept: Mapping[str, Any]) -> str:
    """Return a function's parameters as JSON. `<`, `>` and `&` are escaped only within properties, as in Ollama."""
    shown = (f'"{key}": {(spaced if key == "properties" else unescaped)(kept[key])}' for key in kept)
    return "{" + ", ".join(shown) + "}"


def arguments(text: str) -> dict[str, Any]:
    """Return the arguments of a call; numbers are floats, the keys of inner objects are sorted. Empty text: none."""
    value = tool_schema.parsed(text)
    return {key: tool_schema.with_sorted_keys(each) for key, each in value.items()} if isinstance(value, dict) else {}


class MediaMarkers:
    """Numbers the media of a conversation while its messages are rendered in order."""

    def __init__(self) -> None:
        self._next = 0

    def content(self, message: Message) -> str:
        """Return the content with a marker for each image: see puna.prompt.media_markers."""
        prefix, content = media_markers.marked(message, self._next)
        self._next += len(message.media)
        # Ollama puts a space between the markers and a text that does not begin with one.
        parted = prefix and content and not content[0].isspace()
        return f"{prefix} {content}" if parted else prefix + content


def last_question(messages: Sequence[Message]) -> int:
    """Return the place of the last user message that is no tool's result; of the last message if there is none."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        # Some clients send results of tools as messages of the user.
        response = message.content.startswith("<tool_response>") and message.content.endswith("</tool_response>")
        if message.role == "user" and not response:
            return at
    return len(messages) - 1


def chatml_result(messages: Sequence[Message], place: int, content: str) -> str:
    """Return a tool's result in ChatML. Neighbouring results share one turn of the user."""
    begins = not place or messages[place - 1].role != "tool"
    ends = place + 1 == len(messages) or messages[place + 1].role != "tool"
    start, end = "<|im_start|>user" * begins, "<|im_end|>\n" * ends
    return f"{start}\n<tool_response>\n{content}\n</tool_response>{end}"


def brief(value: object, *, quote: str, none: str) -> str:
    """Return a JSON value as the models of Gemma write it: keys bare and sorted, texts between special quotes."""
    match value:
        case str():
            return f"{quote}{value}{quote}"
        case None:
            return none
        case Mapping():
            members = (f"{key}:{brief(value[key], quote=quote, none=none)}" for key in sorted(value))
            return "{" + ",".join(members) + "}"
        case list():
            return "[" + ",".join(brief(each, quote=quote, none=none) for each in value) + "]"
        # All numbers of arguments are floats here; these models know integers without a point.
        case float() if value.is_integer() and abs(value) < 2**63:
            return str(int(value))
    return go_text(value)
