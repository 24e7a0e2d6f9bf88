"""What prompts of several families are made of: JSON with spaces, marks for media."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from puna.go import json as gojson
from puna.go.template.formatting import text as go_text
from puna.messages import Message
from puna.prompt import tool_schema

_PUNCTUATION: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[:,]')


def spaced(value: object) -> str:
    """Encode as JSON with a space after each colon and comma, in the order given."""
    return _PUNCTUATION.sub(lambda m: m[0] if m[0][0] == '"' else m[0] + " ", gojson.dumps(value))


def unescaped(value: object) -> str:
    """Encode the same with `<`, `>` and `&` as themselves."""
    return re.sub(
        r"\\\\|\\u003c|\\u003e|\\u0026",
        lambda m: {"\\u003c": "<", "\\u003e": ">", "\\u0026": "&"}.get(m[0], m[0]),
        spaced(value),
    )


def parameters(kept: Mapping[str, Any]) -> str:
    """Encode a function's parameters; `<` and its like are escaped only within the properties, as in the reference."""
    shown = (f'"{key}": {(spaced if key == "properties" else unescaped)(kept[key])}' for key in kept)
    return "{" + ", ".join(shown) + "}"


def arguments(text: str) -> dict[str, Any]:
    """Read the arguments of a call: numbers are floats, the keys of objects inside are sorted. Empty text: none."""
    value = tool_schema.parsed(text)
    return {key: tool_schema.by_key(each) for key, each in value.items()} if isinstance(value, dict) else {}


class MediaMarks:
    """Numbers the media of a conversation while its messages are rendered in order."""

    def __init__(self) -> None:
        self._next = 0

    def content(self, message: Message) -> str:
        """Return the content with marks: for each `[img]` in order, the rest in front, parted by a space."""
        content, prefix = message.content, ""
        for _ in message.media:
            mark = f"[img-{self._next}]"
            self._next += 1
            if "[img]" in content:
                content = content.replace("[img]", mark, 1)
            else:
                prefix += mark
        parted = prefix and content and not content[0].isspace()
        return f"{prefix} {content}" if parted else prefix + content


def last_question(messages: Sequence[Message]) -> int:
    """Return where the last user message stands that is no result of a tool; the last message without one."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        response = message.content.startswith("<tool_response>") and message.content.endswith("</tool_response>")
        if message.role == "user" and not response:
            return at
    return len(messages) - 1


def brief(value: object, *, quote: str, none: str) -> str:
    """Write a JSON value as Gemma's models do: keys bare and sorted, texts between quotes of their own."""
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
        case float() if value.is_integer() and abs(value) < 2**63:
            return str(int(value))
    return go_text(value)
