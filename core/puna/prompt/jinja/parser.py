"""Reads answers in the layout of a chat template: thinking, content, and at the end the tool calls.

    answer = [thinking_start] THINKING thinking_end [content_start] CONTENT [content_end] [section_start] call* ...

The markers are those of an OutputLayout, and each may be missing. States: START decides whether the answer begins with
thinking; THINKING ends at its marker, or at the start of content or of a call for layouts that say so; ANSWER passes
what wraps content; CONTENT ends at its end marker, at the start of a call, or at another thought; CALLS keeps all text
until the answer ends, when puna.prompt.jinja.calls reads it; PLAIN is content to the end.

THINKING and CONTENT hold back the end of the text that could be the start of a marker. White space that the template
writes after a marker is dropped if the model writes it too, one character for each.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from puna.backend.thinking import ThinkingMarkers
from puna.messages import Tool
from puna.prompt.jinja.calls import read_calls
from puna.prompt.layout import CallSyntax, OutputLayout
from puna.prompt.markers import first_or_certain
from puna.prompt.parsed import OpenCalls, ParsedDelta

_WRAPPERS: Final = ("type", "function", "id", "arguments", "parameters", "name")


class _State(Enum):
    START = auto()
    THINKING = auto()
    ANSWER = auto()
    """Before content, where the marker that wraps it may come."""
    CONTENT = auto()
    CALLS = auto()
    PLAIN = auto()
    """Content to the end of the answer."""


class OutputParser:
    """Reads one answer."""

    def __init__(self, layout: OutputLayout, tools: Sequence[Tool], answer_prefix: str = "") -> None:
        """answer_prefix: the beginning of the answer that the prompt already holds, such as an opening tag."""
        self.layout = layout
        """The layout, which also names the tokens that must be visible and the texts that end the answer."""
        self._tools = tools
        self._calls = bool(tools) and layout.call_syntax is not CallSyntax.NONE
        # A request without tools cannot be answered by calls, so their markers are content.
        self._starts = _call_starts(layout, tools) if self._calls else ()
        self._thinks = layout.thinks and bool(layout.thinking_end.strip())
        # Without thinking and calls there is nothing to decide, and white space at the start is content.
        bare = not (self._thinks or self._calls or layout.skips_space)
        self._state = _State.ANSWER if bare else _State.START
        self._buffer = answer_prefix
        self._space = ""
        """The white space of the marker that was just passed and may still follow."""
        self._skipping = False
        """All white space is dropped until another character comes."""
        self._thought = ""
        """White space at the start of thinking, which counts only if other characters follow."""
        self._has_thought = False

    def thinking_markers(self) -> ThinkingMarkers | None:
        """Return the markers of the layout, as far as thinking can still begin behind the answer's beginning."""
        if not self._thinks:
            return None
        layout = self.layout
        start, begun = layout.thinking_start.strip(), self._buffer.lstrip()
        ends = self._ends_of_thinking()
        opened = begun.startswith(start) and not any(end in begun for end in ends)
        # Without a start marker every answer begins within thinking.
        is_open = opened and bool(begun or not start)
        if begun and not is_open and not layout.thinks_again:
            return None
        return ThinkingMarkers(
            starts=(start,) if start and not (is_open and not layout.thinks_again) else (),
            open=is_open,
            again=layout.thinks_again,
            ends=ends,
            # White space before the marker would be shown as thinking beyond the budget.
            closings=(layout.thinking_end.lstrip(),),
        )

    def feed(self, text: str) -> ParsedDelta:
        """Return what `text` completes."""
        self._buffer += text
        content, thinking = [], []
        while True:
            # A step that changes none of the three needs more text.
            before = (self._state, len(self._buffer), len(self._space))
            said, thought = self._step()
            content.append(said)
            thinking.append(thought)
            if before == (self._state, len(self._buffer), len(self._space)) or not self._buffer:
                return ParsedDelta("".join(content), "".join(thinking))

    def finish(self) -> ParsedDelta:
        """Return what was held back, and all calls. A text that is no call after all is content."""
        # A state may have been left waiting for a text that never comes; an empty one lets it decide what it can.
        sure = self.feed("")
        rest, self._buffer = self._buffer, ""
        if self._state is _State.THINKING:
            # The token limit may cut a thought; the beginning of a marker at its end is then text.
            return ParsedDelta(sure.content, sure.thinking + self._thinking(rest))
        if self._state is _State.CALLS:
            # Calls are read once at the end: a call may be followed by another, and only the whole text shows where
            # calls end.
            calls, after = read_calls(rest, self.layout, self._tools)
            # The end of the turn may follow the calls as text, since its tokens are preserved for the parser.
            for stray in self.layout.stray_markers if calls else ():
                after = after.replace(stray, "").strip()
            return ParsedDelta(sure.content + (after if calls else rest), sure.thinking, calls)
        return ParsedDelta(sure.content + rest, sure.thinking)

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return OpenCalls(self._buffer, several=True) if self._state is _State.CALLS else None

    def _step(self) -> tuple[str, str]:
        self._eat_space()
        if self._state is _State.START:
            self._start()
        elif self._state is _State.THINKING:
            return "", self._think()
        elif self._state is _State.ANSWER:
            self._answer()
        elif self._state is _State.CONTENT:
            return self._content(), ""
        elif self._state is _State.CALLS:
            self._doubt()
        elif self._state is _State.PLAIN:
            return self._pass(len(self._buffer)), ""
        return "", ""

    def _pass(self, length: int) -> str:
        out, self._buffer = self._buffer[:length], self._buffer[length:]
        return out

    def _eat_space(self) -> None:
        if self._skipping and self._buffer:
            self._buffer = self._buffer.lstrip()
            self._skipping = not self._buffer
        # The model need not repeat the template's white space, so each character is dropped only if it matches.
        while self._space and self._buffer:
            if self._buffer[0] == self._space[0]:
                self._buffer = self._buffer[1:]
            self._space = self._space[1:]

    def _start(self) -> None:
        self._buffer = self._buffer.lstrip()
        if not self._buffer:
            return
        marker = self.layout.thinking_start.strip()
        if not self._thinks:
            self._state = _State.ANSWER
        elif self._buffer.startswith(marker):
            self._pass(len(marker))
            self._space = _trailing_space(self.layout.thinking_start)
            self._skipping = self.layout.skips_space
            self._state = _State.THINKING
        elif not marker.startswith(self._buffer):
            self._state = _State.ANSWER

    def _think(self) -> str:
        ending = self.layout.thinking_end.strip()
        end, found = first_or_certain(self._ends_of_thinking(), self._buffer)
        thought = self._thinking(self._pass(end))
        if found:
            # A marker of calls or content that ends thinking stays in the buffer: the next state reads it.
            if found == ending:
                self._pass(len(found))
                self._space = _trailing_space(self.layout.thinking_end)
                self._skipping = self.layout.skips_space
            self._state = _State.ANSWER
        return thought

    def _ends_of_thinking(self) -> tuple[str, ...]:
        markers = [self.layout.thinking_end.strip()]
        if self.layout.calls_end_thinking:
            markers += self._starts or (self.layout.calls_marker,)
        if self.layout.content_ends_thinking:
            markers.append(self.layout.content_start.strip())
        return tuple(marker for marker in markers if marker)

    def _thinking(self, text: str) -> str:
        if self._has_thought:
            return text
        # Thinking of white space alone is none: templates open and close an empty thought for answers without thinking.
        self._thought += text
        if not self._thought.strip():
            return ""
        self._has_thought = True
        return self._thought

    def _answer(self) -> None:
        marker = self.layout.content_start.strip()
        if marker and self.layout.content_end:
            # White space before the marker belongs to the template's layout. Without the marker it is content and
            # stays.
            bare = self._buffer.lstrip()
            if bare.startswith(marker):
                self._buffer = bare[len(marker) :]
                self._space = _trailing_space(self.layout.content_start)
            elif marker.startswith(bare):
                return
        self._state = _State.CONTENT

    def _content(self) -> str:
        closing = self.layout.content_end.strip() if self.layout.content_start.strip() else ""
        thought = self.layout.thinking_start.strip() if self.layout.thinks_again else ""
        markers = [each for each in (closing, thought, *self.layout.stray_markers) if each]
        end, found = first_or_certain([*self._starts, *markers], self._buffer)
        out = self._pass(end)
        if found and found == closing:
            self._pass(len(found))
            self._buffer = self._buffer.lstrip()
            # Calls, and markers to drop, may still follow wrapped content.
            self._state = _State.ANSWER if self._calls or self.layout.stray_markers else _State.PLAIN
        elif found and found == thought:
            self._state = _State.START
        elif found in self.layout.stray_markers:
            self._pass(len(found))
        elif found:
            self._state = _State.CALLS
        return out

    def _doubt(self) -> None:
        """Go back to content as soon as an object without a marker turns out to be no call."""
        if (
            self.layout.calls_marker
            or self.layout.call_syntax is not CallSyntax.JSON
            or not self._buffer.startswith("{")
        ):
            return
        # An answer in JSON, without any call, would otherwise not stream until its end.
        inside = self._buffer[1:].lstrip()
        keys = [f'"{each}"' for each in (*_WRAPPERS, self.layout.json.name.split(".")[0]) if each]
        if inside and not any(inside.startswith(each) or each.startswith(inside) for each in keys):
            self._state = _State.PLAIN


def _call_starts(layout: OutputLayout, tools: Sequence[Tool]) -> tuple[str, ...]:
    """Return the texts with which calls may begin."""
    first = layout.calls_marker or layout.tagged.before_name.strip()
    if not first and layout.call_syntax is CallSyntax.JSON:
        first = "[" if layout.json.in_array else "{"
    out = [first] if first else []
    for each in layout.unmarked_calls:
        out += [each.replace("NAME", tool.name) for tool in tools] if "NAME" in each else [each]
    return tuple(out)


def _trailing_space(marker: str) -> str:
    return marker[len(marker.rstrip()) :]
