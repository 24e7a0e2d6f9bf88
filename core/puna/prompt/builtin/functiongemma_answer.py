"""Reads answers of FunctionGemma: content, and calls in a notation with bare keys.

    answer = (CONTENT | "<start_function_call>" "call:" NAME "{" [KEY ":" VALUE ("," KEY ":" VALUE)*] "}" END)*
    VALUE  = "<escape>" TEXT "<escape>" | NUMBER | true | false | "[" VALUE* "]" | "{" KEY ":" VALUE ... "}" | bare TEXT
    END    = "<end_function_call>"

There are two states, within a call and outside. Outside, the parser holds back what could be the start of a call.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from puna.go import json as gojson
from puna.go.template import literals
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.notation.literals import number
from puna.prompt.markers import overlap
from puna.prompt.parsed import ParsedDelta

_CALL: Final = "<start_function_call>"
_END_OF_CALL: Final = "<end_function_call>"
_QUOTE: Final = "<escape>"
# As in Go's expressions the dot does not match a line end: arguments of several lines make a call unreadable.
_WRITTEN: Final = re.compile(r"call:([^{]+)\{(.*)\}")
_NUMBER: Final = re.compile(
    r"[\t\v\f\r ]*([+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[eEpP][+-]?[0-9_]*)?))"
)


class FunctionGemmaParser:
    """Reads content and calls. An unreadable call becomes a call without a name and arguments, as in Ollama."""

    preserved_tokens: tuple[str, ...] = (_CALL, _END_OF_CALL)

    def __init__(self) -> None:
        self._calling = False
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Change nothing."""
        return tools

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes."""
        self._held += text
        content, calls = "", []
        while True:
            tag = _END_OF_CALL if self._calling else _CALL
            before, found, rest = self._held.partition(tag)
            if not found:
                break
            self._held = rest
            if self._calling:
                calls.append(self._call(before))
            else:
                content += before
            self._calling = not self._calling
        if not self._calling:
            end = len(self._held) - overlap(self._held, _CALL)
            content += self._held[:end]
            self._held = self._held[end:]
        return ParsedDelta(content, calls=tuple(calls))

    def finish(self) -> ParsedDelta:
        """Return nothing: text that is held back at the end is lost, as in Ollama."""
        return self.feed("")

    def _call(self, raw: str) -> ToolCall:
        match = _WRITTEN.search(raw)
        name, arguments = (match[1], _members(match[2])) if match else ("", {})
        self._count += 1
        return ToolCall(name=name, arguments=gojson.dumps(arguments), index=self._count - 1)


def _members(text: str) -> dict[str, object]:
    members = (part.partition(":") for part in _parts(text))
    return {name: _value(value) for name, found, value in members if found}


def _parts(text: str) -> Iterator[str]:
    """Yield the texts between the commas that stand outside brackets and strings."""
    depth, part = 0, ""
    # Odd chunks stand between quotes, where commas and brackets are text.
    for i, chunk in enumerate(text.split(_QUOTE)):
        part += _QUOTE if i else ""
        if i % 2:
            part += chunk
            continue
        for char in chunk:
            if char == "," and not depth:
                if part:
                    yield part
                part = ""
                continue
            depth += (char in "{[") - (char in "}]")
            part += char
    if part:
        yield part


def _value(text: str) -> object:
    if text.startswith(_QUOTE) and text.endswith(_QUOTE) and len(text) >= 2 * len(_QUOTE):
        return text[len(_QUOTE) : -len(_QUOTE)]
    if text in ("true", "false"):
        return text == "true"
    read = number(text)
    # Ollama scans a number at the beginning of the text and ignores what follows it.
    if read is None and (match := _NUMBER.match(text)):
        read = _floating(match[1])
    if read is not None:
        return read
    if text.startswith("[") and text.endswith("]"):
        # An empty list is nil in Ollama, which prints as null.
        return [_value(part) for part in _parts(text[1:-1])] or None
    if text.startswith("{") and text.endswith("}"):
        return _members(text[1:-1])
    return text


def _floating(token: str) -> float | None:
    """Return the float that Go's scanner reads, also one with a decimal mantissa and a binary exponent."""
    mantissa, found, power = token.partition("p")
    if not found or token[:3].lstrip("+-")[:2].lower() == "0x":
        return literals.floating(token)
    value = literals.floating(mantissa)
    return None if value is None or number(power) is None else value * 2.0 ** int(power)
