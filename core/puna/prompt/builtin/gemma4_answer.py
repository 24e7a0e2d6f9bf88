r"""Reads answers of Gemma 4: content, a channel for thoughts, and calls in a notation with bare keys.

    answer  = (CONTENT | thought | call)*
    thought = "<|channel>" ["thought\n"] TEXT "<channel|>"
    call    = "<|tool_call>" "call:NAME{...}" "<tool_call|>" ("<|tool_response>" | "<tool_call|>")*

States: CONTENT until a marker; OPENING while the name of the channel is incomplete; THINKING and CALL until their ends;
AFTER_CALL passes white space and what may end a turn of calls. CONTENT holds back what could be the start of a marker
with the white space before it; THINKING holds back white space at the end, which is dropped if the channel ends there.
A channel or a call that is open at the end of the answer counts as closed.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.interface import SteppedParser
from puna.prompt.builtin.notation.gemma4_call import QUOTE, read_call
from puna.prompt.markers import first_of, overlap
from puna.prompt.parsed import ParsedDelta

_CHANNEL: Final = "<|channel>"
_END_OF_CHANNEL: Final = "<channel|>"
_CALL: Final = "<|tool_call>"
_END_OF_CALL: Final = "<tool_call|>"
_RESPONSE: Final = "<|tool_response>"
_THOUGHT: Final = "thought\n"


class _State(Enum):
    CONTENT = auto()
    OPENING = auto()
    THINKING = auto()
    CALL = auto()
    AFTER_CALL = auto()


class Gemma4Parser(SteppedParser):
    """Reads thoughts, content and calls. Thoughts that the client did not ask for and unreadable calls are dropped."""

    preserved_tokens: tuple[str, ...] = (_CHANNEL, _END_OF_CHANNEL, _CALL, _END_OF_CALL, _RESPONSE, QUOTE)

    def __init__(self, *, thinks: bool = True) -> None:
        self.has_thinking = thinks
        self._shows = thinks
        self._tools: Sequence[Tool] = ()
        self._state = _State.CONTENT
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:  # noqa: ARG002
        """Take the tools, by whose schemas broken calls are mended, and whether thoughts are shown."""
        self._tools = tools
        self._shows = self.has_thinking and think is not None and think.on
        return tools

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the markers of the channel for thoughts, which the model may open at any time."""
        if not self.has_thinking:
            return None
        return ThinkingMarkers(
            starts=(_CHANNEL + _THOUGHT,), again=True, ends=(_END_OF_CHANNEL,), closings=(_END_OF_CHANNEL,)
        )

    def _advance(self, text: str, *, done: bool) -> ParsedDelta:
        self._held += text
        thinking, content, calls = "", "", []
        while True:
            state = self._state
            match state:
                case _State.CONTENT:
                    content += self._content()
                case _State.OPENING:
                    self._open()
                case _State.THINKING:
                    thinking += self._thought()
                case _State.CALL:
                    raw, found, rest = self._held.partition(_END_OF_CALL)
                    if found:
                        calls.extend(self._call(raw))
                        self._held, self._state = rest, _State.AFTER_CALL
                case _State.AFTER_CALL:
                    self._pass_response()
            if self._state is state:
                break
        if done and state is _State.CALL:
            calls.extend(self._call(self._held))
        elif done and state is _State.CONTENT:
            content += self._held
        # A thought that the token limit cut is still a thought.
        elif done and state in (_State.OPENING, _State.THINKING):
            thinking += self._held
        return ParsedDelta(content, thinking if self._shows else "", tuple(calls))

    def _content(self) -> str:
        at, tag = first_of((_CHANNEL, _CALL), self._held)
        if at < 0:
            return self._take(max(overlap(self._held, tag) for tag in (_CHANNEL, _CALL)))
        before = self._held[:at].rstrip(SPACE)
        self._held = self._held[at + len(tag) :]
        self._state = _State.CALL if tag == _CALL else _State.OPENING
        return before

    def _open(self) -> None:
        """Pass the name of the channel. A channel of another name is a thought that begins with that name."""
        # The name of the channel may arrive in pieces. Until it differs from "thought" the text is undecided.
        if self._held == _THOUGHT or not _THOUGHT.startswith(self._held):
            self._held, self._state = self._held.removeprefix(_THOUGHT), _State.THINKING

    def _thought(self) -> str:
        before, found, rest = self._held.partition(_END_OF_CHANNEL)
        if found:
            self._held, self._state = rest.lstrip(SPACE), _State.CONTENT
            return before.rstrip(SPACE)
        uncertain = overlap(self._held, _END_OF_CHANNEL)
        sure = self._held[: len(self._held) - uncertain]
        return self._take(uncertain or len(sure) - len(sure.rstrip(SPACE)))

    def _take(self, uncertain: int) -> str:
        """Take all but the last `uncertain` characters and the white space before them."""
        sure = self._held[: len(self._held) - uncertain]
        if uncertain:
            sure = sure.rstrip(SPACE)
        self._held = self._held[len(sure) :]
        return sure

    def _pass_response(self) -> None:
        """Pass white space, the marker that ends a turn of calls, and a second end of the call."""
        tags = (_RESPONSE, _END_OF_CALL)
        self._held = self._held.lstrip(SPACE)
        # Models write these markers several times and in either order.
        while tag := next((tag for tag in tags if self._held.startswith(tag)), ""):
            self._held = self._held.removeprefix(tag).lstrip(SPACE)
        # An empty text is the beginning of every marker, so the state lasts until other text comes.
        if not any(tag.startswith(self._held) for tag in tags):
            self._state = _State.CONTENT

    def _call(self, raw: str) -> list[ToolCall]:
        call = read_call(raw, self._tools)
        if call is None:
            return []
        name, arguments = call
        self._count += 1
        return [ToolCall(name=name, arguments=gojson.dumps(arguments), index=self._count - 1)]
