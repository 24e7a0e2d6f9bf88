"""Reads calls with markers while the model writes them: the head of a call, and arguments between markers.

The markers are read by puna.prompt.jinja.calls, from which the classes here take their methods, so both agree on what a
marker is. A method of it fails on a text that is too short, or takes a marker for missing that has not come yet. So a
step is taken only where the text reaches beyond all markers that could stand there, and is undone if it fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from puna.go import json as gojson
from puna.messages import Tool
from puna.prompt.call_deltas.json_scanner import UnreadableJsonError
from puna.prompt.jinja.arguments import parsed
from puna.prompt.jinja.calls import CallReader, UnreadableError
from puna.prompt.layout import CallSyntax, OutputLayout
from puna.prompt.markers import overlap
from puna.prompt.value import Value

_CDATA: Final = "<![CDATA["
_NULL: Final = "null"


class ArgumentTypes(Protocol):
    """The types of arguments that a model writes as text."""

    nulls: bool
    """Whether the word null is null, whatever the type."""

    def value(self, tool: str, key: str, text: str) -> Value:
        """Return the value of a text. Raises UnreadableJsonError if the parser of the answer may read it otherwise."""
        ...

    def only_text(self, tool: str, key: str) -> bool:
        """Return whether every text is the value itself, the word null excepted."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a call."""

    name: str
    id: str
    rest: str
    """The text behind it."""


class TaggedHead(CallReader):
    """Reads the head of the call with which a text begins."""

    def found(self) -> Head | None:
        """Return the head if the text has all of it, with the beginning of its arguments or the end of the call."""
        layout, tagged = self._layout, self._layout.tagged
        # The end of the call before it, and what stands between two calls.
        for marker in (tagged.after_arguments, tagged.close, layout.call_end, layout.section_end, ","):
            self._take(marker)
        try:
            for marker in (layout.section_start, layout.call_start):
                self._take(marker)
            name, made = self._tagged_head()
        except UnreadableError:
            return None
        self._skip()
        rest = self._text[self._at :]
        begins = [tagged.before_key, tagged.after_arguments, tagged.close, layout.call_end]
        if layout.call_syntax is CallSyntax.TAGGED_JSON:
            begins = ["{"]
        if not any(each.strip() and rest.startswith(each.strip()) for each in begins):
            return None
        return Head(name, made or "", rest)


class TaggedArguments(CallReader):
    """Reads arguments between markers. Texts grow as they are written, other values come when they are complete."""

    def __init__(self, head: Head, layout: OutputLayout, tools: Sequence[Tool], types: ArgumentTypes) -> None:
        super().__init__("", layout, tools)
        self.name, self.id = head.name, head.id
        self.ready = True
        self.closed = False
        self._types = types
        self._separator = "{"
        self._string = ""
        """The text before the string that is being read; empty: none is."""
        self._quoted = False
        """Whether the beginning of that string was returned."""
        closing = layout.tagged.after_value
        self._end = closing.strip()
        self._lead = closing[: len(closing) - len(closing.lstrip())]

    @property
    def rest(self) -> str:
        """The text behind the arguments."""
        return self._text

    def feed(self, text: str) -> str:
        """Return the next part of the arguments. Raises UnreadableJsonError for a text that cannot follow."""
        self._text += text
        out: list[str] = []
        while not self.closed:
            part = self._string_part() if self._string else self._next()
            if part is None:
                break
            out.append(part)
        return "".join(out)

    def _next(self) -> str | None:
        """Read a key, and its value unless that is a text."""
        tagged = self._layout.tagged
        self._at = 0
        if not self._take(tagged.before_key):
            rest = self._text[self._at :]
            ends = [tagged.after_arguments.strip(), tagged.close.strip(), self._layout.call_end.strip()]
            if any(end and rest.startswith(end) for end in ends):
                self._text, self.closed = rest, True
                return "{}" if self._separator == "{" else "}"
            if any(marker.startswith(rest) for marker in (tagged.before_key.strip(), *ends)):
                return None
            raise UnreadableJsonError(rest)
        try:
            key = self._key()
            # Behind the key, markers with white space of their own may follow.
            reach = len(tagged.after_key) + max(len(tagged.before_value), len(tagged.before_json))
            reach += len(_CDATA) if tagged.cdata else 0
            if len(self._text) - self._at <= reach and self._end not in self._text[self._at :]:
                return None
            before = f"{self._separator}{gojson.string(key)}:"
            if tagged.before_json and self._take(tagged.before_json):
                value = parsed(self._value(tagged.after_value))
            else:
                self._exactly(tagged.before_value)
                bare = not (tagged.cdata and self._text[self._at :].lstrip().startswith(_CDATA))
                if bare and self._types.only_text(self.name, key):
                    self._text, self._separator = self._text[self._at :], ","
                    self._string, self._quoted = before, False
                    return ""
                value = self._types.value(self.name, key, self._value(tagged.after_value))
        except UnreadableError:
            return None
        self._text, self._separator = self._text[self._at :], ","
        return before + gojson.dumps(value)

    def _string_part(self) -> str | None:
        """Read a part of a text, up to what could be its closing marker."""
        end = self._text.find(self._end)
        if end < 0:
            end = len(self._text) - max(overlap(self._text, each) for each in (self._end, self._lead + self._end))
            sure, over = self._text[:end], False
        else:
            sure, over = self._text[:end].removesuffix(self._lead), True
        # The word may be null, or the beginning of a text.
        if self._types.nulls and not self._quoted and _NULL.startswith(sure.lower()):
            if not over:
                return None
            if sure.lower() == _NULL:
                return self._finished(end, self._string + _NULL)
        if not sure and not over:
            return None
        before = "" if self._quoted else f'{self._string}"'
        written = before + gojson.string(sure)[1:-1]
        if over:
            return self._finished(end, f'{written}"')
        self._text, self._quoted = self._text[end:], True
        return written

    def _finished(self, end: int, written: str) -> str:
        self._text, self._string = self._text[end + len(self._end) :], ""
        return written
