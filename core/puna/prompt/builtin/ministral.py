"""Reads answers of Ministral: content, thinking between markers, and calls as a name and a JSON object.

    answer = (CONTENT | "[THINK]" THINKING "[/THINK]" | "[TOOL_CALLS]" NAME "[ARGS]" OBJECT)*

States: CONTENT until a marker, NAME until `[ARGS]`, ARGUMENTS until the brackets of the object balance, THINKING. Calls
have no end marker, so the object must be complete before the state returns to CONTENT. CONTENT holds back what could be
the start of a marker and white space at the end; THINKING holds back what could be the start of `[/THINK]`.
As in Ollama, a call in a text counts before a thought in the same text, even if the thought comes first.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from puna.errors import BackendFailedError
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.notation import json_text
from puna.prompt.markers import overlap
from puna.prompt.parsed import OpenCalls, ParsedDelta

_CALL: Final = "[TOOL_CALLS]"
_ARGUMENTS: Final = "[ARGS]"
_THINKING: Final = "[THINK]"
_END_OF_THINKING: Final = "[/THINK]"


class _State(Enum):
    CONTENT = auto()
    THINKING = auto()
    NAME = auto()
    ARGUMENTS = auto()


class MinistralParser:
    """Reads thinking, content and calls. A call of an unknown tool, or without an object, is an error, as in Ollama."""

    preserved_tokens: tuple[str, ...] = (_CALL, _THINKING, _END_OF_THINKING, _ARGUMENTS)

    def __init__(self) -> None:
        self._names: frozenset[str] = frozenset()
        self._state = _State.CONTENT
        self._name = ""
        self._held = ""
        self._count = 0
        self._object = _ObjectScan()

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Take the names of the tools: every call must have one of them."""
        self._names = frozenset(tool.name for tool in tools)
        return tools

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes. Raises BackendFailedError."""
        self._held += text
        thinking, content, calls = "", "", []
        while True:
            before = self._state, len(self._held)
            match self._state:
                case _State.CONTENT:
                    content += self._content()
                case _State.THINKING:
                    thinking += self._thought()
                case _State.NAME:
                    name, found, rest = self._held.partition(_ARGUMENTS)
                    if found:
                        self._name, self._held, self._state = name, rest, _State.ARGUMENTS
                        self._object = _ObjectScan()
                case _State.ARGUMENTS:
                    calls.extend(self._call())
            if before == (self._state, len(self._held)):
                return ParsedDelta(content, thinking, tuple(calls))

    def finish(self) -> ParsedDelta:
        """Return nothing: text that is held back at the end is lost, as in Ollama."""
        return self.feed("")

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return OpenCalls(self._held, self._name) if self._state is _State.ARGUMENTS else None

    def _content(self) -> str:
        tags = {_CALL: _State.NAME, _THINKING: _State.THINKING}
        # In the order of the table and not of the text: see above on Ollama.
        for tag, following in tags.items():
            before, found, rest = self._held.partition(tag)
            if found:
                self._held, self._state = rest, following
                return before.rstrip(SPACE)
        sure = self._held[: len(self._held) - max(overlap(self._held, tag) for tag in tags)].rstrip(SPACE)
        self._held = self._held[len(sure) :]
        return sure

    def _thought(self) -> str:
        before, found, rest = self._held.partition(_END_OF_THINKING)
        if found:
            self._held, self._state = rest.lstrip(SPACE), _State.CONTENT
            return before
        end = len(self._held) - overlap(self._held, _END_OF_THINKING)
        before, self._held = self._held[:end], self._held[end:]
        return before

    def _call(self) -> list[ToolCall]:
        end = self._object.end(self._held)
        if end < 0:
            return []
        # The name is checked once the call is complete, since an incomplete one at the end of an answer is no error.
        if self._name not in self._names:
            raise BackendFailedError(f"tool '{self._name}' not found")
        try:
            arguments = json_text.read(self._held[:end])
        except ValueError as error:
            raise BackendFailedError(str(error)) from None
        if not isinstance(arguments, dict):
            raise BackendFailedError("Value looks like object, but can't find closing '}' symbol")
        self._held, self._state = self._held[end:], _State.CONTENT
        self._count += 1
        return [ToolCall(name=self._name, arguments=gojson.dumps(arguments), index=self._count - 1)]


class _ObjectScan:
    """Finds the end of the object that begins a text, which is where its brackets balance.

    Each character is read once, since a call may have as many as a file.
    """

    def __init__(self) -> None:
        self._at = self._depth = 0
        self._quoted = self._escaped = False

    def end(self, text: str) -> int:
        """Read what was added to the text; return the end of the object, -1 if it is incomplete."""
        for at in range(self._at, len(text)):
            self._at, char = at + 1, text[at]
            if self._quoted:
                self._quoted = self._escaped or char != '"'
                self._escaped = not self._escaped and char == "\\"
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if not self._depth:
                    return at + 1
        return -1
