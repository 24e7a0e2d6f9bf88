r"""Reads answers of Olmo 3: content and blocks of calls in Python's notation, or thinking and content without calls.

    answer = (CONTENT | "<function_calls>" (call "\n")* "</function_calls>")*
    call   = NAME "(" [KEY "=" VALUE ("," KEY "=" VALUE)*] ")"
    VALUE  = quoted TEXT with escapes | NUMBER | true | false | null, also in Python's words | "[" ... "]" | "{" ... "}"

    answer of the models that think = THINKING "</think>" CONTENT

States of Olmo3Parser: CONTENT until the start of a block, holding back what could be that marker; CALLS until its end;
AFTER, in which the rest of the text, or the next one, is content whatever it says, as in Ollama.
"""

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.interface import SteppedParser, goes_on
from puna.prompt.builtin.notation.literals import at_commas, number
from puna.prompt.markers import overlap
from puna.prompt.parsed import ParsedDelta

_CALLS: Final = "<function_calls>"
_END_OF_CALLS: Final = "</function_calls>"
_END_OF_THINKING: Final = "</think>"
_CALL: Final = re.compile(r"([A-Za-z0-9_]+)\((.*)\)")
_WORDS: Final = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE: Final = re.compile(r"""\\([ntr\\"'])""")


class _State(Enum):
    CONTENT = auto()
    CALLS = auto()
    AFTER = auto()
    """The rest of the text, or the next one, is content whatever it says."""


class Olmo3Parser(SteppedParser):
    """Reads content and calls. A block of calls with a line that is no call is dropped."""

    preserved_tokens: tuple[str, ...] = (_CALLS, _END_OF_CALLS)

    def __init__(self) -> None:
        self._state = _State.CONTENT
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Change nothing."""
        return tools

    def _advance(self, text: str, *, done: bool) -> ParsedDelta:
        self._held += text
        content, calls = "", []
        while True:
            state = self._state
            match state:
                case _State.CONTENT:
                    before, found, rest = self._held.partition(_CALLS)
                    # The marker consists of ordinary tokens, so it may arrive in pieces.
                    held = 0 if done or found else overlap(before, _CALLS)
                    content += before[: len(before) - held]
                    self._held = rest if found else before[len(before) - held :]
                    self._state = _State.CALLS if found else state
                case _State.CALLS:
                    block, found, rest = self._held.partition(_END_OF_CALLS)
                    if found:
                        calls.extend(self._calls(block))
                        self._held, self._state = rest, _State.AFTER
                case _State.AFTER if self._held:
                    content += self._held
                    self._held, self._state = "", _State.CONTENT
            if self._state is state:
                return ParsedDelta(content, calls=tuple(calls))

    def _calls(self, block: str) -> list[ToolCall]:
        try:
            read = read_calls(block)
        except ValueError:
            # Unreadable calls vanish, as in Ollama. The state goes on, so later content arrives.
            return []
        begin = self._count
        self._count += len(read)
        return [
            ToolCall(name=name, arguments=gojson.dumps(arguments), index=begin + i)
            for i, (name, arguments) in enumerate(read)
        ]


class Olmo3ThinkParser:
    """Reads thinking, with which every answer begins, and content."""

    preserved_tokens: tuple[str, ...] = (_END_OF_THINKING,)

    def __init__(self) -> None:
        self._thinking = True
        self._held = ""

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Begin within thinking, unless the conversation began the answer."""
        self._thinking = not goes_on(last_message)
        return tools

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the end of the thinking, with which every answer begins."""
        if not self._thinking:
            return None
        return ThinkingMarkers(open=True, ends=(_END_OF_THINKING,), closings=(f"{_END_OF_THINKING}\n\n",))

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes."""
        if not self._thinking:
            return ParsedDelta(text)
        self._held += text
        before, found, rest = self._held.partition(_END_OF_THINKING)
        if found:
            self._thinking = False
            return ParsedDelta(rest.lstrip(SPACE), before.rstrip(SPACE))
        sure = self._held[: len(self._held) - overlap(self._held, _END_OF_THINKING)].rstrip(SPACE)
        self._held = self._held[len(sure) :]
        return ParsedDelta(thinking=sure)

    def finish(self) -> ParsedDelta:
        """Return nothing: text that is held back at the end is lost, as in Ollama."""
        return self.feed("")


def read_calls(text: str) -> list[tuple[str, dict[str, object]]]:
    """Return the names and arguments of calls. Raises ValueError if a line is no call."""
    calls = []
    for line in filter(None, (line.strip(SPACE) for line in text.split("\n"))):
        # One call stands on each line.
        match = _CALL.fullmatch(line)
        # One unreadable line makes the whole block content.
        if match is None:
            raise ValueError("no call")
        calls.append((match[1], _arguments(match[2])))
    return calls


def _arguments(text: str) -> dict[str, object]:
    arguments = {}
    for part in filter(None, (part.strip(SPACE) for part in at_commas(text))):
        name, found, value = part.partition("=")
        if not found:
            raise ValueError("no name of an argument")
        arguments[name.strip(SPACE)] = _value(value.strip(SPACE))
    return arguments


def _value(text: str) -> object:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return _ESCAPE.sub(lambda match: _ESCAPES[match[1]], text[1:-1])
    if text in _WORDS:
        return _WORDS[text]
    if (read := number(text)) is not None:
        return read
    inner = [part.strip(SPACE) for part in at_commas(text[1:-1])] if len(text) > 1 else []
    if text.startswith("[") and text.endswith("]"):
        return [_value(part) for part in (inner if inner[-1] else inner[:-1])]
    if text.startswith("{") and text.endswith("}"):
        return dict(_member(part) for part in inner if part)
    return text


def _member(text: str) -> tuple[str, object]:
    name, found, value = text.partition(":")
    if not found:
        raise ValueError("no value of a member")
    name = name.strip(SPACE)
    quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
    return name[1:-1] if quoted else name, _value(value.strip(SPACE))
