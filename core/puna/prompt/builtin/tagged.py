"""Reads answers of models that think up to `</think>` and write calls between `<tool_call>` and `</tool_call>`.

    answer = [["<think>"] THINKING "</think>"] (CONTENT | call)*
    call   = "<tool_call>" BODY "</tool_call>"

BODY differs between families, and a `ReadCall` reads it. So do small habits, which ParserOptions lists: Ollama has a
parser of its own for each family, and its clients see where these parsers drop white space.

States: OPENING and NOTICING decide whether the answer begins with `<think>`; in NOTICING it is content if it does not.
THINKING ends at `</think>`, or at a call for families that leave thinking open. CONTENT ends at `<tool_call>`, CALL at
`</tool_call>`. In THINKING and CONTENT the parser holds back the end of the text that could be the start of a marker,
and the white space before it, because white space before a marker does not belong to the text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from puna.backend.thinking import ThinkingMarkers
from puna.errors import BackendFailedError
from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.interface import SteppedParser, goes_on
from puna.prompt.markers import overlap
from puna.prompt.parsed import OpenCalls, ParsedDelta

ReadCall = Callable[[str, Sequence[Tool]], tuple[str, dict[str, Any]]]
"""Reads the text between the tags of a call; returns the name and the arguments. Raises BackendFailedError."""

_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"
_BEGINNING: Final = "<think>"
_END_OF_THINKING: Final = "</think>"
CALL_TAGS: Final = (_OPEN, _CLOSE)
ALL_TAGS: Final = (_OPEN, _CLOSE, _BEGINNING, _END_OF_THINKING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParserOptions:
    """How a family writes, and where its parser in Ollama drops white space."""

    thinks: bool = False
    """The prompt ends with the start of thinking, so that an answer begins within it."""
    notices: bool = False
    """Thinking is read where the model opens it itself, although the prompt does not ask for it."""
    always_thinks: bool = False
    """Answers begin within thinking even if the client turned thinking off."""
    begins_anew: bool = False
    """An answer begins within thinking even if the conversation ends with the beginning of that answer."""
    opens: bool = False
    """The model may write the opening tag although the prompt has it."""
    calls_while_thinking: bool = False
    """A call ends thinking that is still open."""
    closing_first: bool = False
    """In thinking, `</think>` or the start of it counts before a call, even if the call comes first; and a call that
    ends thinking loses the white space at its beginning."""
    eats_blank_pieces: bool = False
    """White space before thinking is dropped if it comes in a text of its own."""
    eats_after_opening: bool = True
    """White space after the opening tag is dropped in whatever text it comes; otherwise only in the text of the tag."""
    eats_after_calls: bool = True
    """The same after a call. After the end of thinking white space is always dropped."""
    preserved: tuple[str, ...] = ALL_TAGS
    """Special tokens whose text the parser must see."""
    closes: ReadCall | None = None
    """Reads a call that is not closed at the end of the answer; None: such a call is lost."""


class _State(Enum):
    NOTICING = auto()
    OPENING = auto()
    THINKING = auto()
    CONTENT = auto()
    CALL = auto()


DEFAULT: Final = ParserOptions()


class TaggedParser(SteppedParser):
    """Reads thinking, content and calls. White space around the tags and at the end is dropped."""

    def __init__(self, read_call: ReadCall, options: ParserOptions = DEFAULT) -> None:
        self.preserved_tokens = options.preserved
        self.has_thinking = options.thinks
        self._read_call = read_call
        self._options = options
        self._eating = False
        self._tools: Sequence[Tool] = ()
        self._state = _State.CONTENT
        self._held = ""
        self._count = 0

    def init(self, tools: Sequence[Tool], last_message: Message | None, think: Think | None) -> Sequence[Tool]:
        """Choose the first state: see ParserOptions. Content goes on where the conversation ends with an answer."""
        self._tools = tools
        continues = goes_on(last_message)
        options = self._options
        if (
            options.thinks
            and (options.begins_anew or not continues)
            and (options.always_thinks or think is None or think.on)
        ):
            self._state = _State.OPENING if options.opens else _State.THINKING
        elif options.notices:
            self._state = _State.NOTICING
        return tools

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the tags around the thinking."""
        if self._state is _State.CONTENT:
            return None
        notices = self._state is _State.NOTICING
        return ThinkingMarkers(
            starts=(_BEGINNING,) if notices or self._options.opens else (),
            open=not notices,
            ends=(_END_OF_THINKING, _OPEN) if self._options.calls_while_thinking else (_END_OF_THINKING,),
            closings=(f"{_END_OF_THINKING}\n\n",),
        )

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return OpenCalls(self._held) if self._state is _State.CALL else None

    def _advance(self, text: str, *, done: bool) -> ParsedDelta:
        """Return what `text` completes, and at the end a call that was not closed, if the option `closes` is set.

        Other text that is held then is dropped. Raises BackendFailedError for a call that cannot be read.
        """
        self._held += text
        thinking, content, calls = "", "", []
        while True:
            # White space may arrive in several texts, so dropping it is a state of its own.
            if self._eating and self._held:
                self._held = self._held.lstrip(SPACE)
                self._eating = not self._held
            match self._state:
                case _State.OPENING | _State.NOTICING:
                    found = self._open()
                case _State.THINKING:
                    found = self._before(*self._ends_of_thinking())
                    thinking += found or ""
                case _State.CONTENT:
                    found = self._before((_OPEN, _State.CALL))
                    content += found or ""
                case _State.CALL:
                    raw, closed, rest = self._held.partition(_CLOSE)
                    found = raw if closed else None
                    if found is not None:
                        calls.append(self._call(raw, self._read_call))
                        self._held, self._state = rest, _State.CONTENT
                        self._eat(self._options.eats_after_calls)
            # Each pass handles one marker. Without another one the text up to a possible marker can go out.
            if found is None:
                break
        # The loop passed all complete markers; the rest of the text is certain up to a possible marker.
        if self._state is _State.THINKING:
            thinking += self._sure([tag for tag, _ in self._ends_of_thinking()])
        elif self._state is _State.CONTENT:
            content += self._sure([_OPEN])
        elif self._state is _State.CALL and done and self._options.closes:
            calls.append(self._unclosed(self._options.closes))
        return ParsedDelta(content, thinking, tuple(calls))

    def _ends_of_thinking(self) -> list[tuple[str, _State]]:
        ends = [(_END_OF_THINKING, _State.CONTENT)]
        if self._options.closing_first and (_END_OF_THINKING in self._held or overlap(self._held, _END_OF_THINKING)):
            return ends
        return [*ends, (_OPEN, _State.CALL)] if self._options.calls_while_thinking else ends

    def _open(self) -> str | None:
        """Pass the opening tag if the answer begins with it. None: more text must decide."""
        trimmed = self._held.lstrip(SPACE)
        if not trimmed and self._options.eats_blank_pieces:
            self._held = ""
        if not trimmed or (_BEGINNING.startswith(trimmed) and trimmed != _BEGINNING):
            return None
        # In OPENING the prompt has opened the thought already, so the tag is optional.
        opened = trimmed.startswith(_BEGINNING)
        self._state = _State.THINKING if opened or self._state is _State.OPENING else _State.CONTENT
        if opened:
            self._held = trimmed.removeprefix(_BEGINNING)
            self._eat(self._options.eats_after_opening)
        return ""

    def _eat(self, on: bool) -> None:
        """Drop white space; `on`: also at the start of the next texts."""
        self._held = self._held.lstrip(SPACE)
        self._eating = on and not self._held

    def _before(self, *tags: tuple[str, _State]) -> str | None:
        """Return the text before the first of the tags, pass the tag and enter its state. None: there is no tag."""
        places = [(self._held.find(tag), tag, state) for tag, state in tags if not self._waits(tag)]
        at, tag, state = min((p for p in places if p[0] >= 0), default=(-1, "", self._state), key=lambda p: p[0])
        if at < 0:
            return None
        before = self._held[:at].rstrip(SPACE)
        self._held = self._held[at + len(tag) :]
        if state is _State.CONTENT:
            self._eat(True)
        elif self._options.closing_first and self._state is _State.THINKING:
            self._eat(False)
        self._state = state
        return before

    def _waits(self, tag: str) -> bool:
        """Return whether this tag of a call counts only once another character follows it."""
        thinking = self._state is _State.THINKING and self._options.closing_first
        return thinking and tag == _OPEN and self._held.find(tag) == len(self._held) - len(tag)

    def _sure(self, tags: Sequence[str]) -> str:
        """Take the text that is neither the start of a tag nor white space before one."""
        # The longest possible marker decides how much is held back.
        end = len(self._held) - max(overlap(self._held, tag) for tag in tags)
        # Such a call waits for the character behind its tag: see _waits.
        if _OPEN in tags and _OPEN in self._held:
            end = self._held.index(_OPEN)
        sure = self._held[:end].rstrip(SPACE)
        self._held = self._held[len(sure) :]
        return sure

    def _unclosed(self, read_call: ReadCall) -> ToolCall:
        # The end may hold the beginning of the closing tag, which is no part of the call.
        raw, self._held = self._held[: len(self._held) - overlap(self._held, _CLOSE)], ""
        try:
            call = self._call(raw, read_call)
            # An unfinished call may have an unfinished name.
            if not any(tool.name == call.name for tool in self._tools):
                raise BackendFailedError(f"tool {gojson.quote(call.name)} is not declared")
        except BackendFailedError as error:
            raise BackendFailedError(f"incomplete GLM tool call: {error}") from None
        return call

    def _call(self, raw: str, read_call: ReadCall) -> ToolCall:
        name, arguments = read_call(raw, self._tools)
        call = ToolCall(name=name, arguments=gojson.dumps(arguments), index=self._count)
        self._count += 1
        return call
