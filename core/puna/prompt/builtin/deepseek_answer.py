r"""Reads answers of DeepSeek 3.1 and Cogito: thinking up to `</think>`, then content and calls with JSON arguments.

    answer        = [THINKING "</think>"] CONTENT (CALLS call* END_OF_CALLS CONTENT)*
    call          = CALL NAME SEPARATOR OBJECT END_OF_CALL
    Cogito's call = CALL "function" SEPARATOR NAME "\n```json\n" OBJECT "\n```" END_OF_CALL

The names with underscores, CALL and CALLS are special tokens, so they come whole, and only THINKING holds text back:
what could be the start of `</think>`, and the white space before it. States: THINKING, CONTENT, CALLS, and FAILED after
a call that cannot be read: everything up to END_OF_CALLS is then passed over.
"""

from collections.abc import Sequence
from enum import Enum, auto

from puna.backend.thinking import ThinkingMarkers
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.format_texts.deepseek import CALL, CALLS, END_OF_CALL, END_OF_CALLS, SEPARATOR
from puna.prompt.builtin.interface import goes_on
from puna.prompt.builtin.notation import json_text
from puna.prompt.markers import overlap
from puna.prompt.parsed import OpenCalls, ParsedDelta

_END_OF_THINKING = "</think>"


def _tokens(*names: str) -> tuple[str, ...]:
    return tuple(f"<\uff5c{name}\uff5c>" for name in names)


class _State(Enum):
    THINKING = auto()
    CONTENT = auto()
    CALLS = auto()
    FAILED = auto()


class DeepSeekParser:
    """Reads thinking, content and calls. A call that cannot be read and all after it are left out."""

    preserved_tokens: tuple[str, ...] = (
        CALLS, END_OF_CALLS, CALL, END_OF_CALL, SEPARATOR, _END_OF_THINKING,
        *_tokens("tool▁output▁begin", "tool▁output▁end"),
    )  # fmt: skip

    def __init__(self, *, fenced: bool = False) -> None:
        """fenced: the arguments stand in a fence, as Cogito writes them; such a model does not think with tools."""
        self._fenced = fenced
        if fenced:
            self.preserved_tokens += _tokens("tool▁outputs▁begin", "tool▁outputs▁end")
        self._state = _State.CONTENT
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:
        """Begin within thinking if the client asks for it and the conversation did not begin the answer."""
        continues = goes_on(last_message)
        if think is not None and think.on and not continues and not (self._fenced and tools):
            self._state = _State.THINKING
        return tools

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the end of the thinking, which the prompt begins."""
        if self._state is not _State.THINKING:
            return None
        return ThinkingMarkers(open=True, ends=(_END_OF_THINKING,), closings=(_END_OF_THINKING,))

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes."""
        self._held += text
        thinking, content, calls = "", "", []
        while True:
            state = self._state
            match state:
                case _State.THINKING:
                    before, found, rest = self._held.partition(_END_OF_THINKING)
                    if found:
                        # White space around `</think>` belongs to neither part.
                        thinking += before.rstrip(SPACE)
                        self._held, self._state = rest.lstrip(SPACE), _State.CONTENT
                    else:
                        thinking += self._sure()
                case _State.CONTENT:
                    before, found, rest = self._held.partition(CALLS)
                    content += before.rstrip(SPACE) if found else before
                    self._held, self._state = rest, _State.CALLS if found else state
                case _State.CALLS:
                    calls.extend(self._calls())
                case _State.FAILED:
                    self._end_calls()
            if self._state is state:
                return ParsedDelta(content, thinking, tuple(calls))

    def finish(self) -> ParsedDelta:
        """Return nothing: text that is held back at the end is lost, as in Ollama."""
        return self.feed("")

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return OpenCalls(self._held) if self._state is _State.CALLS else None

    def _sure(self) -> str:
        """Take the text that is neither the start of `</think>` nor white space before it."""
        end = len(self._held) - overlap(self._held, _END_OF_THINKING)
        sure = self._held[:end].rstrip(SPACE)
        self._held = self._held[len(sure) :]
        return sure

    def _calls(self) -> list[ToolCall]:
        """Take the complete calls, and pass END_OF_CALLS if it is there."""
        calls: list[ToolCall] = []
        while True:
            at, end = self._held.find(END_OF_CALL), self._held.find(END_OF_CALLS)
            # END_OF_CALLS may come before the next complete call; then the calls are over.
            if at < 0 or 0 <= end < at:
                self._end_calls()
                return calls
            _, begun, raw = self._held[:at].partition(CALL)
            self._held = self._held[at + len(END_OF_CALL) :]
            # An end without a beginning is passed over.
            if not begun:
                continue
            call = self._read(raw)
            if call is None:
                self._state = _State.FAILED
                return calls
            calls.append(call)

    def _end_calls(self) -> None:
        """Pass END_OF_CALLS if it is there. White space after it is content only if it comes in a text of its own."""
        _, ended, rest = self._held.partition(END_OF_CALLS)
        if ended:
            self._held, self._state = rest.lstrip(SPACE), _State.CONTENT

    def _read(self, raw: str) -> ToolCall | None:
        name, _, text = raw.partition(SEPARATOR)
        if self._fenced:
            name, _, text = text.partition("\n```json\n")
            # Without the closing fence the arguments may be incomplete.
            text, closed, _ = text.partition("\n```")
            if not closed:
                return None
        try:
            arguments = json_text.read_arguments(text.strip(SPACE))
        except ValueError:
            return None
        call = ToolCall(name=name.strip(SPACE), arguments=gojson.dumps(arguments), index=self._count)
        self._count += 1
        return call
