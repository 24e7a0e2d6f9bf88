"""Reads tool calls of models whose Go template shows only how a call begins.

The template tells the tag, nothing more, so the parser searches instead of parsing: behind the tag it looks for the
name of a known tool and for the first JSON object with the arguments of that tool, in whatever order they come. Text
behind the tag that is no call vanishes.

States: LOOKING for the tag, holding back what could be its start; CALLING, in which all text is kept until it completes
a call; DONE, in which all text is content. If the tag is a bare bracket, DONE follows where content comes before it or
where the brackets balance, and an answer without any call is given back as content.

Each character is read once, since a call may have as many characters as a file: scans of the kept text go on where they
ended. A call that is cut off the text begins them anew.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NoReturn

from puna.go import json as gojson
from puna.go.space import SPACE
from puna.messages import Tool, ToolCall
from puna.prompt.markers import overlap
from puna.prompt.parsed import OpenCalls, ParsedDelta


class _State(Enum):
    LOOKING = auto()
    CALLING = auto()
    DONE = auto()


class ToolCallParser:
    """Reads one answer."""

    def __init__(self, tools: Sequence[Tool], tag: str) -> None:
        """tag: the text that begins a call, from puna.go.template.facts."""
        self._names = [tool.name for tool in tools]
        self._tag = tag
        self._bare = tag in ("{", "[")
        self._state = _State.LOOKING
        self._held = ""
        self._count = 0
        self._begin_scans()

    def _begin_scans(self) -> None:
        """Forget what is known of the kept text."""
        self._objects = _ObjectScan()
        self._brackets = _BracketScan(self._tag)
        self._places: dict[str, int] = {}
        """Where each name stands first."""
        self._searched = 0
        """Length of the text in which the other names do not occur."""

    def feed(self, text: str) -> ParsedDelta:
        """Return the calls and the content that `text` completes."""
        if self._state is _State.DONE:
            return ParsedDelta(text)
        self._held += text
        content = ""
        if self._state is _State.LOOKING:
            content, self._state = self._look()
            if self._state is not _State.CALLING:
                return ParsedDelta(content)
        calls = list(self._calls())
        if self._bare and self._brackets.balanced(self._held):
            self._state = _State.DONE
            content, self._held = self._held, ""
        return ParsedDelta(content, calls=tuple(calls))

    def finish(self) -> ParsedDelta:
        """Return the content that was held back for a call that never came."""
        return ParsedDelta(self._held if self._bare and not self._count else "")

    @property
    def open_calls(self) -> OpenCalls | None:
        """The calls for which the parser is waiting; None: for none."""
        return OpenCalls(self._held) if self._state is _State.CALLING else None

    def _look(self) -> tuple[str, _State]:
        """Return the content before the tag, and the next state."""
        at = self._held.find(self._tag)
        found = at >= 0
        if not found:
            at = len(self._held) - overlap(self._held, self._tag)
        content, self._held = self._held[:at], self._held[at:]
        # A bracket in the middle of an answer is ordinary text.
        if self._bare and content.strip(SPACE):
            content, self._held = content + self._held, ""
            return content, _State.DONE
        return content, _State.CALLING if found else _State.LOOKING

    def _calls(self) -> Iterator[ToolCall]:
        while (found := self._find_name()) is not None:
            name, name_end = found
            text = self._find_object(name)
            # The object may be complete with the next text.
            if text is None or text.arguments is None:
                return
            called = self._called(text, name, name_end)
            # With a bare bracket the text may still be content, so nothing is removed from it.
            if called is None and self._bare:
                return
            # The closing brace stays, as in Ollama, where it keeps brackets from balancing.
            # The name may stand behind the object. Then both are passed, so that the name does not start another call.
            self._held = self._held[max(name_end, text.end) if called == name else text.end :]
            self._begin_scans()
            if called is not None:
                yield ToolCall(name=called, arguments=gojson.dumps(text.arguments), index=self._count)
                self._count += 1

    def _called(self, text: "_Object", name: str, name_end: int) -> str | None:
        """Return the tool that a call names, or None if the request does not offer it.

        `name` is the first name of an offered tool in the text. It may stand in the tag, in a key or in a value, so the
        name that the call states has precedence. The stated name may have a prefix, such as `functions.get`.
        """
        stated = text.stated
        if not isinstance(stated, str) or stated in self._names:
            return stated if isinstance(stated, str) else name
        if name in stated:
            return name
        parts = [each for each in self._names if each in stated]
        if parts:
            # The longest part is the most specific: "get_weather" wins over "get" in "functions.get_weather".
            return max(parts, key=len)
        before = name_end - len(name) < text.start and name not in self._tag
        return name if before else None

    def _find_name(self) -> tuple[str, int] | None:
        """Return the first name of a tool in the held text, and its end; None: there is none, or it may grow."""
        # While the text ends with the beginning of a name, a longer name may still come.
        for name in self._names:
            if any(self._held.endswith(name[:n]) for n in range(1, len(name))):
                return None
        for name in self._names:
            if name not in self._places:
                # A name may have begun at the end of the text that was searched before.
                place = self._held.find(name, max(0, self._searched - len(name) + 1))
                if place >= 0:
                    self._places[name] = place
        self._searched = len(self._held)
        # The first place counts, and at one place the longest name.
        first = min(((place, -len(name), name) for name, place in self._places.items()), default=None)
        return None if first is None or not self._held else (first[2], first[0] + len(first[2]))

    def _find_object(self, name: str) -> "_Object | None":
        """Return the first object of the held text that is JSON, as a call of the tool `name`."""
        if (found := self._objects.first(self._held)) is None:
            return None
        holds, stated, arguments = _search(name, found.value)
        return _Object(found.start, found.end, stated, arguments if holds else found.value)


class _OutsideStrings:
    """Reads the characters outside JSON strings of a text that grows, each once."""

    def __init__(self) -> None:
        self._at = 0
        self._in_string = self._escaped = False

    def read(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield the characters that were not read before, with their places. The iteration may stop at any of them."""
        for at in range(self._at, len(text)):
            self._at, char = at + 1, text[at]
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                yield at, char


class _BracketScan:
    """Says when the brackets of a text balance for the first time."""

    def __init__(self, opening: str) -> None:
        self._characters = _OutsideStrings()
        self._opening, self._closing = opening, "}" if opening == "{" else "]"
        self._depth = 0
        self._balanced = False

    def balanced(self, text: str) -> bool:
        """Read what was added to the text; return whether the brackets have balanced."""
        if not self._balanced:
            for _, char in self._characters.read(text):
                if char == self._opening:
                    self._depth += 1
                elif char == self._closing:
                    self._depth -= 1
                    if self._depth == 0:
                        self._balanced = True
                        break
        return self._balanced


@dataclass(frozen=True, slots=True)
class _JsonObject:
    """A JSON object in a text."""

    start: int
    end: int
    """Offsets of its first and last character."""
    value: Mapping[str, Any]


class _ObjectScan:
    """Finds the first JSON object of a text that grows."""

    def __init__(self) -> None:
        self._characters = _OutsideStrings()
        self._depth, self._start = 0, -1
        self._found: _JsonObject | None = None

    def first(self, text: str) -> _JsonObject | None:
        """Read what was added to the text; return its first object, None if none is complete."""
        if self._found is None:
            for at, char in self._characters.read(text):
                if char == "{":
                    if self._depth == 0:
                        self._start = at
                    self._depth += 1
                elif char == "}":
                    self._depth -= 1
                    if self._depth == 0 and self._start >= 0:
                        # Balanced braces need not be JSON: a model may write `{get}` before the object.
                        value = _object(text[self._start : at + 1])
                        if value is not None:
                            self._found = _JsonObject(self._start, at, value)
                            break
                        self._start = -1
                    self._depth = max(self._depth, 0)
        return self._found


@dataclass(frozen=True, slots=True)
class _Object:
    """The JSON object of a call."""

    start: int
    end: int
    """Offsets of its first and last character."""
    stated: object
    """The value of its member `name`; None if it has none."""
    arguments: Mapping[str, Any] | None
    """None if it has none that can be used."""


def _search(name: str, found: Mapping[str, Any]) -> tuple[bool, object, Mapping[str, Any] | None]:
    """Return whether an object is or holds a call, the name that it states and its arguments.

    The arguments are None if the call has none that can be used.
    """
    # A member called name is a call's name at any depth: models wrap calls in further objects.
    if "name" in found:
        arguments = _arguments(found.get("arguments"))
        # Models trained on different notations write "arguments" or "parameters".
        return True, found["name"], _arguments(found.get("parameters")) if arguments is None else arguments
    if (arguments := _arguments(found.get(name))) is not None:
        return True, None, arguments
    for value in found.values():
        for child in value if isinstance(value, list) else (value,):
            if isinstance(child, Mapping):
                holds, stated, arguments = _search(name, child)
                if holds:
                    return True, stated, arguments
    return False, None, None


def _arguments(value: object) -> Mapping[str, Any] | None:
    """Return the arguments, which may be an object or its JSON text; None: they are neither."""
    if isinstance(value, str):
        return _object(value)
    return value if isinstance(value, Mapping) else None


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refuse)
    # A model may write nesting that Python's reader cannot follow. That text is no call.
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
