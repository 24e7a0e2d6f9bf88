"""Reads answers of Laguna: thinking up to `</think>`, content, and calls as pairs of keys and values.

    answer = [["<think>"] THINKING "</think>"] (CONTENT | "<think>" THINKING "</think>" | call)*
    call   = "<tool_call>" (NAME pair* | JSON object) "</tool_call>"
    pair   = "<arg_key>" KEY "</arg_key>" "<arg_value>" VALUE "</arg_value>"

States: OPENING where the answer begins within thinking, RESUMING where it goes on with an answer that may close a
thought; then THINKING, CONTENT and CALL. Both texts hold back what could be the start of a marker. THINKING also waits
for white space, because Ollama passes thoughts on word by word. A call ends thinking, and a call that is open at the
end of the answer is read.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.errors import BackendFailedError
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt import tool_schema
from puna.prompt.builtin.interface import SteppedParser, goes_on
from puna.prompt.builtin.notation.json_call import read_call as read_json_call
from puna.prompt.builtin.qwen3_coder_answer import typed
from puna.prompt.markers import first_of, overlap
from puna.prompt.parsed import OpenCalls, ParsedDelta

_BEGINNING: Final = "<think>"
_END_OF_THINKING: Final = "</think>"
_CALL: Final = "<tool_call>"
_END_OF_CALL: Final = "</tool_call>"
_PAIR: Final = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


class _State(Enum):
    OPENING = auto()
    RESUMING = auto()
    THINKING = auto()
    CONTENT = auto()
    CALL = auto()


class LagunaParser(SteppedParser):
    """Reads thinking, content and calls. Thoughts that the client did not ask for are dropped."""

    preserved_tokens: tuple[str, ...] = (
        _BEGINNING, _END_OF_THINKING, _CALL, _END_OF_CALL, "<user>", "</user>",
        "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
    )  # fmt: skip

    def __init__(self, *, resumes: bool) -> None:
        """resumes: an answer that the conversation began goes on outside thinking."""
        self._resumes = resumes
        self._tools: Sequence[Tool] = ()
        self._shows = False
        self._state = _State.CONTENT
        self._eating = True
        """White space is dropped before the first content, but not after a thought in the middle of content."""
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:
        """Begin within thinking if the client asks for it."""
        self._tools = tools
        self._shows = think is not None and think.on
        continues = goes_on(last_message)
        # The prompt ends within an answer, which may close a thought that the conversation began.
        if self._resumes and continues:
            self._state = _State.RESUMING
        elif self._shows:
            self._state = _State.OPENING
        return tools

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the tags around thinking, which the model may open at any time."""
        return ThinkingMarkers(
            starts=(_BEGINNING,),
            open=self._state is _State.OPENING,
            again=True,
            ends=(_END_OF_THINKING, _CALL),
            closings=(_END_OF_THINKING,),
        )

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return OpenCalls(self._held) if self._state is _State.CALL else None

    def _advance(self, text: str, *, done: bool) -> ParsedDelta:
        """Return what `text` completes, and at the end a call that was not closed.

        Raises BackendFailedError for a JSON call that cannot be read.
        """
        self._held += text
        thinking, content, calls = "", "", []
        while True:
            state, length = self._state, len(self._held)
            match state:
                case _State.OPENING:
                    self._open(_BEGINNING, _State.THINKING, done)
                case _State.RESUMING:
                    self._open(_END_OF_THINKING, _State.CONTENT, done)
                case _State.THINKING:
                    thinking += self._thought(done)
                case _State.CONTENT:
                    content += self._content(done)
                case _State.CALL:
                    raw, found, rest = self._held.partition(_END_OF_CALL)
                    # The token limit may cut the end marker; the call before it is read.
                    if found or (done and raw.strip(SPACE)):
                        calls.append(self._call(raw))
                        self._held, self._state = rest.lstrip(SPACE), _State.CONTENT
            if self._state is state and len(self._held) == length:
                return ParsedDelta(content, thinking if self._shows else "", tuple(calls))

    def _open(self, tag: str, following: _State, done: bool) -> None:
        """Pass a tag with which an answer may begin, and enter the state after it."""
        trimmed = self._held.lstrip(SPACE)
        if trimmed.startswith(tag):
            self._held, self._state = trimmed.removeprefix(tag).lstrip(SPACE), following
        elif done or not tag.startswith(trimmed):
            self._held, self._state = trimmed, following

    def _pass(self, *tags: str) -> tuple[str, str] | None:
        """Pass the first of the tags; return the text before it and the tag. None: there is no tag."""
        at, tag = first_of(tags, self._held)
        if not tag:
            return None
        before, self._held = self._held[:at].rstrip(SPACE), self._held[at + len(tag) :]
        return before, tag

    def _thought(self, done: bool) -> str:
        passed = self._pass(_END_OF_THINKING, _CALL)
        if passed:
            self._state = _State.CALL if passed[1] == _CALL else _State.CONTENT
            self._held = self._held.lstrip(SPACE)
            return passed[0]
        if done:
            return self._take(len(self._held)).rstrip(SPACE)
        # Ollama passes thoughts on word by word.
        length = self._sure(_END_OF_THINKING, _CALL)
        return self._take(length if length < len(self._held) else 0)

    def _content(self, done: bool) -> str:
        trimmed = self._held.lstrip(SPACE)
        if trimmed.startswith(_END_OF_THINKING):  # the model closes a thought that it did not open
            self._held = trimmed.removeprefix(_END_OF_THINKING)
        if self._eating:
            self._held = self._held.lstrip(SPACE)
            self._eating = not self._held
        passed = self._pass(_BEGINNING, _CALL)
        if passed:
            self._state = _State.CALL if passed[1] == _CALL else _State.THINKING
            return passed[0]
        if done:
            return self._take(len(self._held)).rstrip(SPACE)
        return self._take(self._sure(_BEGINNING, _CALL, _END_OF_THINKING))

    def _sure(self, *tags: str) -> int:
        """Return the length of the text before a possible start of a tag, or else before white space at the end."""
        uncertain = max(overlap(self._held, tag) for tag in tags)
        # White space at the end may stand before a marker, where it does not count.
        return len(self._held) - uncertain if uncertain else len(self._held.rstrip(SPACE))

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken

    def _call(self, raw: str) -> ToolCall:
        name, arguments = _read(raw, self._tools)
        self._count += 1
        return ToolCall(name=name, arguments=gojson.dumps(arguments), index=self._count - 1)


def _read(raw: str, tools: Sequence[Tool]) -> tuple[str, Mapping[str, object]]:
    # Models repeat the opening tag; the first part with text is the call.
    raw = next((part for part in raw.split(_CALL) if part.strip(SPACE)), "").strip(SPACE)
    if raw.startswith("{"):
        try:
            return read_json_call(raw, tools)
        except BackendFailedError as error:
            raise BackendFailedError(f"failed to parse Laguna JSON tool call: {error}") from None
    name = raw.partition("<arg_key>")[0].strip(SPACE)
    properties = tool_schema.properties_of(name, tools)
    return name, {
        key.strip(SPACE): typed(value, tool_schema.types_of(properties.get(key.strip(SPACE), {})))
        for key, value in _PAIR.findall(raw)
    }
