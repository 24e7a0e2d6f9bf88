"""Reads answers of Command A: thinking, text and calls as JSON, each between tokens of its own.

    answer = ["<|START_THINKING|>"] THINKING "<|END_THINKING|>" (text | calls)*
    text   = ("<|START_TEXT|>" | "<|START_RESPONSE|>") TEXT ("<|END_TEXT|>" | "<|END_RESPONSE|>")
    calls  = "<|START_ACTION|>" "[" OBJECT* "]" "<|END_ACTION|>"

States: THINKING, which the prompt begins; DECIDING between text and calls, in which text without a marker counts as
content; TEXT and CALLS until their ends. THINKING and TEXT hold back what could be the start of their end marker. An
object that is no call is left out of CALLS; the objects are found by their brackets, whatever stands between them.
"""

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.interface import SteppedParser
from puna.prompt.builtin.notation import json_text
from puna.prompt.markers import first_of, overlap
from puna.prompt.parsed import OpenCalls, ParsedDelta

_THINKING: Final = "<|START_THINKING|>"
_END_OF_THINKING: Final = "<|END_THINKING|>"
_TEXT: Final = "<|START_TEXT|>"
_END_OF_TEXT: Final = "<|END_TEXT|>"
_CALLS: Final = "<|START_ACTION|>"
_END_OF_CALLS: Final = "<|END_ACTION|>"
_RESPONSE: Final = "<|START_RESPONSE|>"
_END_OF_RESPONSE: Final = "<|END_RESPONSE|>"


class _State(Enum):
    THINKING = auto()
    DECIDING = auto()
    """Between two parts: text or calls follow."""
    TEXT = auto()
    CALLS = auto()


class CohereParser(SteppedParser):
    """Reads thinking, text and calls. Calls that cannot be read are left out."""

    preserved_tokens: tuple[str, ...] = (
        _THINKING, _END_OF_THINKING, _TEXT, _END_OF_TEXT, _CALLS, _END_OF_CALLS, _RESPONSE, _END_OF_RESPONSE,
    )  # fmt: skip

    def __init__(self) -> None:
        self._state = _State.DECIDING
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:
        """Begin within text if the conversation began the answer, else within thinking unless it is turned off."""
        if last_message is not None and last_message.role == "assistant":
            self._state = _State.TEXT
        elif think is None or think.on:
            self._state = _State.THINKING
        return tools

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the tokens around the thinking, which the prompt begins."""
        if self._state is not _State.THINKING:
            return None
        return ThinkingMarkers(starts=(_THINKING,), open=True, ends=(_END_OF_THINKING,), closings=(_END_OF_THINKING,))

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return OpenCalls(self._held, several=True) if self._state is _State.CALLS else None

    def _advance(self, text: str, *, done: bool) -> ParsedDelta:
        self._held += text
        thinking, content, calls = "", "", []
        while True:
            state, length = self._state, len(self._held)
            match state:
                case _State.THINKING:
                    thinking += self._thought()
                case _State.DECIDING:
                    self._decide(done)
                case _State.TEXT:
                    content += self._text(done)
                case _State.CALLS:
                    raw, found, rest = self._held.partition(_END_OF_CALLS)
                    # The token limit may cut the end marker. Complete objects before it still count.
                    if found or (done and raw):
                        calls.extend(self._calls(raw))
                        self._held, self._state = rest, _State.DECIDING
            if self._state is state and len(self._held) == length:
                return ParsedDelta(content, thinking, tuple(calls))

    def _thought(self) -> str:
        before, found, rest = self._held.partition(_END_OF_THINKING)
        if found:
            self._held, self._state = rest, _State.DECIDING
            return before.rstrip(SPACE)
        # White space before the end marker is not part of the thought. It is held back until other text follows.
        sure = self._held[: len(self._held) - overlap(self._held, _END_OF_THINKING)].rstrip(SPACE)
        self._held = self._held[len(sure) :]
        return sure

    def _decide(self, done: bool) -> None:
        self._held = self._held.lstrip(SPACE)
        # Text before the marker is dropped: it stands outside every part.
        at, tag = first_of((_CALLS, _TEXT, _RESPONSE), self._held)
        if tag:
            self._held, self._state = self._held[at + len(tag) :], _State.CALLS if tag == _CALLS else _State.TEXT
        elif self._held and (done or not any(tag.startswith(self._held) for tag in (_CALLS, _TEXT, _RESPONSE))):
            self._state = _State.TEXT

    def _text(self, done: bool) -> str:
        at, tag = first_of((_END_OF_TEXT, _END_OF_RESPONSE), self._held)
        if tag:
            before, self._held, self._state = self._held[:at], self._held[at + len(tag) :], _State.DECIDING
            return before
        held = 0 if done else max(overlap(self._held, tag) for tag in (_END_OF_TEXT, _END_OF_RESPONSE))
        end = len(self._held) - held
        sure, self._held = self._held[:end], self._held[end:]
        return sure

    def _calls(self, raw: str) -> list[ToolCall]:
        calls: list[ToolCall] = []
        for text in _objects(raw):
            try:
                value = json_text.read(text)
            except ValueError:
                continue
            if not isinstance(value, dict):
                continue
            # null counts as missing: "parameters": null is an empty object.
            name, arguments = value.get("tool_name") or "", value.get("parameters") or {}
            if isinstance(name, str) and isinstance(arguments, dict):
                calls.append(ToolCall(name=name, arguments=gojson.dumps(arguments), index=self._count + len(calls)))
        self._count += len(calls)
        return calls


def _objects(text: str) -> Iterator[str]:
    """Yield the outermost objects in a text."""
    depth, begin, quoted, escaped = 0, 0, False, False
    for at, char in enumerate(text):
        if quoted:
            # Braces in strings do not count.
            quoted = escaped or char != '"'
            escaped = not escaped and char == "\\"
        elif char == '"':
            quoted = True
        elif char == "{":
            begin = begin if depth else at
            depth += 1
        elif char == "}" and depth:
            depth -= 1
            if not depth:
                yield text[begin : at + 1]
