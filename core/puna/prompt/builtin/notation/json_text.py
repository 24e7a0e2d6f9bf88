"""Reads JSON that a model wrote, and says what is wrong with it in Go's words."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

from puna.go import json as gojson

NO_OBJECT: Final = "Value looks like object, but can't find closing '}' symbol"
"""What the reference says of arguments that are no object."""
_SPACE: Final = " \t\r\n"
_ESCAPED: Final = '"\\/bfnrt'
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def read(text: str) -> object:
    """Return the value, its numbers floats. Raises ValueError with Go's text."""
    too_large: list[str] = []

    def number(written: str) -> float:
        value = float(written)
        if math.isinf(value):
            too_large.append(written)
        return value

    value = decoded(text, number)
    if too_large:
        raise ValueError(f"json: cannot unmarshal number {too_large[0]} into Go value of type float64")
    return value


def read_arguments(text: str) -> dict[str, Any]:
    """Return the arguments of a call; none for null. Raises ValueError with the reference's text."""
    value = read(text)
    if not isinstance(value, dict | None):
        raise ValueError(NO_OBJECT)
    return value or {}


def decoded(
    text: str, number: Callable[[str], object], members: Callable[[list[tuple[str, Any]]], object] | None = None
) -> object:
    """Return the value, its numbers and objects made by the callables. Raises ValueError with Go's text."""
    try:
        return json.loads(text, parse_int=number, parse_float=number, parse_constant=_refuse, object_pairs_hook=members)
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    except ValueError:
        raise ValueError(_complaint(text)) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _complaint(text: str) -> str:
    try:
        _Scanner(text).whole()
    except _WrongError as found:
        return str(found)
    return "invalid JSON"


class _WrongError(Exception):
    """What is wrong."""


class _Scanner:
    """Reads as Go's scanner does, character by character, until something is wrong."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> None:
        self._value()
        self._skip()
        if self._at < len(self._text):
            raise self._wrong("after top-level value")

    def _wrong(self, context: str) -> _WrongError:
        if self._at >= len(self._text):
            return _WrongError("unexpected end of JSON input")
        # Go names the byte, as if it were a character.
        char = chr(self._text[self._at].encode(errors="surrogatepass")[0])
        shown = "'\\''" if char == "'" else "'\"'" if char == '"' else f"'{gojson.quote(char)[1:-1]}'"
        return _WrongError(f"invalid character {shown} {context}")

    def _skip(self) -> str:
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _value(self) -> None:
        char = self._skip()
        if char == "{":
            self._members("}", "object key:value pair", keyed=True)
        elif char == "[":
            self._members("]", "array element", keyed=False)
        elif char == '"':
            self._string()
        elif char and char in "-0123456789":
            self._number()
        elif char and char in "tfn":
            self._literal({"t": "true", "f": "false", "n": "null"}[char])
        else:
            raise self._wrong("looking for beginning of value")

    def _members(self, close: str, after: str, *, keyed: bool) -> None:
        self._at += 1
        if self._skip() == close:
            self._at += 1
            return
        while True:
            if keyed:
                if self._skip() != '"':
                    raise self._wrong("looking for beginning of object key string")
                self._string()
                if self._skip() != ":":
                    raise self._wrong("after object key")
                self._at += 1
            self._value()
            char = self._skip()
            if char not in (",", close):
                raise self._wrong(f"after {after}")
            self._at += 1
            if char == close:
                return

    def _string(self) -> None:
        self._at += 1
        while (char := self._text[self._at : self._at + 1]) != '"':
            if not char or char < " ":
                raise self._wrong("in string literal")
            self._at += 1
            if char == "\\":
                self._escape()
        self._at += 1

    def _escape(self) -> None:
        char = self._text[self._at : self._at + 1]
        if not char or char not in _ESCAPED + "u":
            raise self._wrong("in string escape code")
        self._at += 1
        for _ in range(4 if char == "u" else 0):
            digit = self._text[self._at : self._at + 1]
            if not digit or digit not in "0123456789abcdefABCDEF":
                raise self._wrong("in \\u hexadecimal character escape")
            self._at += 1

    def _number(self) -> None:
        match = _NUMBER.match(self._text, self._at)
        self._at = match.end() if match else self._at + 1
        char = self._text[self._at : self._at + 1]
        if match is None:
            raise self._wrong("in numeric literal")
        if char == "." and match[2] is None and match[3] is None:
            self._at += 1
            raise self._wrong("after decimal point in numeric literal")
        if char and char in "eE" and match[3] is None:
            self._at += 1 + (self._text[self._at + 1 : self._at + 2] in ("+", "-"))
            raise self._wrong("in exponent of numeric literal")

    def _literal(self, word: str) -> None:
        for expected in word:
            if self._text[self._at : self._at + 1] != expected:
                raise self._wrong(f"in literal {word} (expecting '{expected}')")
            self._at += 1
