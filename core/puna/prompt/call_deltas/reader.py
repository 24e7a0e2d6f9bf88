"""Reads the calls in a text that a model is writing, as far as they are certain.

The parser of an answer reads a call when it is complete, with all its leniency. This module reads the same text beside
it, earlier and strictly: what it does not understand is left to the parser, whose complete call then brings everything
in one piece. So a mistake here can delay a delta, and cannot change a call.

A call has a head, which names the tool, and arguments. An `Arguments` object reads the arguments from one call's text;
`begin` functions find where they begin. What they find is JSON text as puna.go.json writes it, so that the pieces,
joined, are a beginning of the arguments of the complete call.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from puna.messages import Tool
from puna.prompt.call_deltas.json_scanner import JsonScanner, UnreadableJsonError
from puna.prompt.call_deltas.tagged import ArgumentTypes, TaggedArguments, TaggedHead
from puna.prompt.layout import CallSyntax, JsonCall, OutputLayout
from puna.prompt.parsed import OpenCalls

LONGEST_HEAD: Final = 4096
"""Characters after which a text without the head of a call is given up: it is read again with each delta."""
_WRAPPER: Final = "function"
"""The member in which models wrap calls, whatever their template shows: the notation of OpenAI's API."""


class Arguments(Protocol):
    """Reads the arguments of one call."""

    name: str
    id: str

    @property
    def ready(self) -> bool:
        """Whether name and id are known and the arguments have begun."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the arguments and what belongs to their notation are complete."""
        ...

    @property
    def rest(self) -> str:
        """The text behind a closed call."""
        ...

    def feed(self, text: str) -> str:
        """Return the next part of the arguments. Raises UnreadableJsonError."""
        ...


@dataclass(slots=True, eq=False)
class StreamedCall:
    """A call of which a part was read."""

    name: str
    id: str
    parts: list[str] = field(default_factory=list)
    closed: bool = False
    """Whether the arguments are complete."""


Begin = Callable[[str], tuple[Arguments, str] | None]
"""Returns the reader for the first arguments in a text, and the text for it. None: more text must come."""


class CallsReader:
    """Reads the calls in one text."""

    def __init__(self, begin: Begin, names: Iterable[str], *, several: bool) -> None:
        """`names`: the offered tools. A call of another tool is left to the parser of the answer."""
        self._begin = begin
        self._names = frozenset(names)
        self._several = several
        self._text = ""
        self._arguments: Arguments | None = None
        self._call: StreamedCall | None = None
        self._early: list[str] = []
        """Arguments that came before the name."""
        self._over = False

    def feed(self, text: str) -> list[tuple[StreamedCall, str]]:
        """Return the next parts of arguments, each with its call. The first part of a call may be empty."""
        self._text += text
        out: list[tuple[StreamedCall, str]] = []
        try:
            while not self._over and self._advance(out):
                pass
        except UnreadableJsonError:
            self._over = True
        return out

    def _advance(self, out: list[tuple[StreamedCall, str]]) -> bool:
        """Read as far as the current call goes; return whether another one may follow in the text."""
        if self._arguments is None:
            begun = self._begin(self._text) if self._text else None
            if begun is None:
                self._over = len(self._text) > LONGEST_HEAD
                return False
            self._arguments, self._text = begun
        arguments = self._arguments
        text, self._text = self._text, ""
        part = arguments.feed(text)
        if self._call is None and arguments.ready and arguments.name in self._names:
            self._call = StreamedCall(arguments.name, arguments.id)
            part, self._early = "".join([*self._early, part]), []
            self._call.parts.append(part)
            out.append((self._call, part))
        elif self._call is not None and part:
            self._call.parts.append(part)
            out.append((self._call, part))
        elif part:
            self._early.append(part)
        if not arguments.closed:
            return False
        if self._call is not None:
            self._call.closed = True
        self._text, self._arguments, self._call, self._early = arguments.rest, None, None, []
        self._over = not self._several
        return True


class JsonArguments(JsonScanner):
    """Reads a call that is a JSON object, with the name and the arguments among its members."""

    def __init__(self, members: JsonCall) -> None:
        super().__init__()
        self.name = self.id = ""
        self.keeps = False
        self._members = members
        inner = [tuple(members.arguments.split(".")), ("arguments",), ("parameters",)]
        self._places = {*inner, *((_WRAPPER, *place) for place in inner)}
        self._name_places = {tuple(members.name.split(".")), ("name",), (_WRAPPER, "name")}
        self._id_place = tuple(members.id.split(".")) if members.id else None
        self._place: tuple[str, ...] | None = None

    @property
    def ready(self) -> bool:
        """Whether name and id are known and the arguments have begun."""
        # An id may still come, and the client must not get another one before.
        identified = self.closed or self._id_place is None or bool(self.id)
        return self._place is not None and bool(self.name) and identified

    def opened(self, bracket: str) -> None:
        """Begin with the arguments."""
        path = self.path
        if bracket != "{" or self._place is not None:
            return
        if not self._members.name:
            # The name of the tool is itself the key.
            if path[1:] == tuple(each for each in (self._members.arguments,) if each) and path:
                self.name, self._place, self.keeps = path[0], path, True
        elif path in self._places:
            self._place, self.keeps = path, True

    def shut(self) -> None:
        """End with the arguments."""
        if self.keeps and self.path == self._place:
            self.keeps = False

    def said(self, value: str) -> None:
        """Take the name and the id."""
        if self.keeps:
            return
        if self.path == self._id_place:
            self.id = value
        elif self.path in self._name_places and not self.name:
            self.name = value


class BareArguments(JsonScanner):
    """Reads arguments that are a JSON object of their own, behind a name that is known."""

    def __init__(self, name: str, made: str = "") -> None:
        super().__init__()
        self.name, self.id = name, made
        self._begun = False

    @property
    def ready(self) -> bool:
        """Whether the arguments have begun."""
        return self._begun

    def opened(self, bracket: str) -> None:
        """Refuse arguments that are no object."""
        if not self.path and bracket != "{":
            raise UnreadableJsonError(bracket)
        self._begun = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Notation:
    """How a model writes calls, for `CallsReader`."""

    layout: OutputLayout
    types: ArgumentTypes
    searches: bool = False
    """Whether the parser of the answer passes over any text before a call; otherwise such text ends the calls."""

    def reader(self, opened: OpenCalls, tools: Sequence[Tool]) -> CallsReader | None:
        """Return the reader for open calls, which has read nothing yet. None: the notation has no reader."""
        if opened.name:
            # The parser knows the tool, under whatever name the prompt shows it.
            return CallsReader(lambda text: (BareArguments(opened.name), text), [opened.name], several=False)
        begin: Begin
        match self.layout.call_syntax:
            case CallSyntax.JSON:
                begin = self._json_call
            case CallSyntax.TAGGED_JSON:
                begin = functools.partial(self._tagged_json_call, tools)
            case CallSyntax.TAGGED if self.layout.tagged.before_key.strip() and self.layout.tagged.after_value.strip():
                begin = functools.partial(self._tagged_call, tools)
            case _:
                return None
        return CallsReader(begin, [tool.name for tool in tools], several=opened.several)

    def _json_call(self, text: str) -> tuple[Arguments, str] | None:
        at = text.find("{")
        if at < 0:
            return None
        before, layout = text[:at], self.layout
        for marker in filter(str.strip, (layout.section_start, layout.call_start, layout.call_end, layout.section_end)):
            before = before.replace(marker.strip(), "")
        if before.strip(" \t\n\r[],") and not self.searches:
            raise UnreadableJsonError(before)
        return JsonArguments(layout.json), text[at:]

    def _tagged_json_call(self, tools: Sequence[Tool], text: str) -> tuple[Arguments, str] | None:
        head = TaggedHead(text, self.layout, tools).found()
        return (BareArguments(head.name, head.id), head.rest) if head else None

    def _tagged_call(self, tools: Sequence[Tool], text: str) -> tuple[Arguments, str] | None:
        head = TaggedHead(text, self.layout, tools).found()
        return (TaggedArguments(head, self.layout, tools, self.types), head.rest) if head else None
