"""Scans JSON that a model is writing, and writes it again as puna.go.json does, as far as it is certain.

The text comes in pieces that may end anywhere, so the scanner is a machine over characters. A stack holds the open
objects and arrays. `_expects` names what may come next:

    VALUE   a value; FIRST_VALUE  a value, or the end of an empty array
    KEY     a key;   FIRST_KEY    a key, or the end of an empty object
    COLON   the colon behind a key
    NEXT    a comma, or the end of the open object or array
    TEXT    the rest of a string, which may be a key
    END     nothing: the value is complete

A number is certain once another character follows it, an escape once it is complete. Everything else passes at once, so
strings grow as the model writes them.
"""

import json
import math
import re
from enum import Enum, auto
from typing import Final

from puna.go import json as gojson

_SPACE: Final = " \t\n\r"
_CHARACTERS: Final = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPE: Final = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_HIGH: Final = re.compile(r"\\u[dD][89abAB]")
"""The first half of a surrogate pair."""
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_IN_NUMBER: Final = re.compile(r"[-+.0-9eE]*")
_WORDS: Final = ("true", "false", "null")
_ESCAPES: Final = 12
"""Characters of the longest escape: a surrogate pair."""
MOST_LEVELS: Final = 500
"""Depth from which a text is no longer scanned. Python's reader of JSON, which reads the complete call, stops later."""


class UnreadableJsonError(ValueError):
    """The text is not JSON, or is nested too deeply."""


class _Expects(Enum):
    VALUE = auto()
    FIRST_VALUE = auto()
    KEY = auto()
    FIRST_KEY = auto()
    COLON = auto()
    NEXT = auto()
    TEXT = auto()
    END = auto()


class JsonScanner:
    """Scans one value."""

    def __init__(self) -> None:
        self.keeps = True
        """Whether `feed` returns what is scanned. The hooks may change it."""
        self._held = ""
        self._expects = _Expects.VALUE
        self._stack: list[str] = []
        self._keys: list[str] = []
        """The last key of each open object; empty for an array."""
        self._is_key = False
        self._string: list[str] = []

    @property
    def closed(self) -> bool:
        """Whether the value is complete."""
        return self._expects is _Expects.END

    @property
    def rest(self) -> str:
        """The text behind a complete value."""
        return self._held

    def feed(self, text: str) -> str:
        """Return the next part of the value, and report it to the hooks below. Raises UnreadableJsonError."""
        self._held += text
        out: list[str] = []
        while self._expects is not _Expects.END and self._held:
            kept = self.keeps
            written = self._text() if self._expects is _Expects.TEXT else self._step()
            if written is None:
                break
            # A hook may have switched on for the token that it was told of, or off behind it.
            if kept or self.keeps:
                out.append(written)
        return "".join(out)

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead to the value that is being scanned; empty at the top."""
        return tuple(self._keys)

    def opened(self, bracket: str) -> None:
        """Be told that an object ("{") or an array ("[") begins at `path`. For subclasses."""

    def shut(self) -> None:
        """Be told that the object or the array at `path` ends. For subclasses."""

    def said(self, value: str) -> None:
        """Be told the complete string at `path`. For subclasses."""

    def _step(self) -> str | None:
        """Scan one token outside of strings; return it as it is written, or None if more text must decide."""
        self._held = self._held.lstrip(_SPACE)
        if not self._held:
            return None
        char, expects = self._held[0], self._expects
        if char in "}]" and expects in (_Expects.NEXT, _Expects.FIRST_KEY, _Expects.FIRST_VALUE):
            return self._close(char)
        match expects:
            case _Expects.VALUE | _Expects.FIRST_VALUE:
                return self._value(char)
            case _Expects.KEY | _Expects.FIRST_KEY if char == '"':
                return self._begin_string(is_key=True)
            case _Expects.COLON if char == ":":
                return self._take(_Expects.VALUE)
            case _Expects.NEXT if char == ",":
                return self._take(_Expects.KEY if self._stack[-1] == "{" else _Expects.VALUE)
        raise UnreadableJsonError(char)

    def _take(self, following: _Expects) -> str:
        char, self._held, self._expects = self._held[0], self._held[1:], following
        return char

    def _value(self, char: str) -> str | None:
        if char in "{[":
            if len(self._stack) >= MOST_LEVELS:
                raise UnreadableJsonError("nested too deeply")
            self.opened(char)
            self._stack.append(char)
            self._keys.append("")
            return self._take(_Expects.FIRST_KEY if char == "{" else _Expects.FIRST_VALUE)
        if char == '"':
            return self._begin_string(is_key=False)
        if char in "tfn":
            return self._word()
        return self._number()

    def _close(self, char: str) -> str:
        if not self._stack or "{}[]".find(self._stack[-1]) + 1 != "{}[]".find(char):
            raise UnreadableJsonError(char)
        self._stack.pop()
        self._keys.pop()
        written = self._take(self._after_value())
        self.shut()
        return written

    def _after_value(self) -> _Expects:
        return _Expects.NEXT if self._stack else _Expects.END

    def _word(self) -> str | None:
        for word in _WORDS:
            if self._held.startswith(word):
                self._held, self._expects = self._held[len(word) :], self._after_value()
                return word
            if word.startswith(self._held):
                return None
        raise UnreadableJsonError(self._held[:5])

    def _number(self) -> str | None:
        found = _IN_NUMBER.match(self._held)
        written = found[0] if found else ""
        # More digits may follow.
        if written == self._held:
            return None
        if not _NUMBER.fullmatch(written) or math.isinf(value := float(written)):
            raise UnreadableJsonError(written or self._held[0])
        self._held, self._expects = self._held[len(written) :], self._after_value()
        return gojson.number(value)

    def _begin_string(self, *, is_key: bool) -> str:
        self._is_key, self._string = is_key, []
        return self._take(_Expects.TEXT)

    def _text(self) -> str | None:
        """Scan a part of a string."""
        found = _CHARACTERS.match(self._held)
        plain = found[0] if found else ""
        if plain:
            self._held = self._held[len(plain) :]
            return self._add(plain)
        if self._held[0] == '"':
            return self._end_string()
        escape = _ESCAPE.match(self._held)
        if escape is None:
            # A control character, or an escape that JSON does not have.
            if self._held[0] != "\\" or len(self._held) >= _ESCAPES:
                raise UnreadableJsonError(self._held[0])
            return None
        written = escape[0]
        if _HIGH.match(written):
            # Its second half may follow, and both together are one character.
            if len(self._held) < _ESCAPES and '"' not in self._held:
                return None
            second = _ESCAPE.match(self._held, len(written))
            written += second[0] if second else ""
        self._held = self._held[len(written) :]
        return self._add(json.loads(f'"{written}"'))

    def _add(self, text: str) -> str:
        # Only short strings near the top are of interest: names, ids and keys.
        if self._is_key or len(self._stack) <= _NEAR:
            self._string.append(text)
        return gojson.string(text)[1:-1]

    def _end_string(self) -> str:
        value = "".join(self._string)
        if self._is_key:
            self._keys[-1] = value
            return self._take(_Expects.COLON)
        written = self._take(self._after_value())
        if len(self._stack) <= _NEAR:
            self.said(value)
        return written


_NEAR: Final = 2
"""Depth down to which strings are reported."""
