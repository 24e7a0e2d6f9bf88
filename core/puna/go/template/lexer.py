"""The lexer of templates, with Go's trimming of white space and Go's error texts."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from puna.go import json as gojson


class Kind(Enum):
    """The kind of a token."""

    ERROR = auto()
    BOOL = auto()
    CHAR = auto()
    """Any other printable ASCII character, such as a comma."""
    CHAR_CONSTANT = auto()
    COMPLEX = auto()
    ASSIGN = auto()
    DECLARE = auto()
    EOF = auto()
    FIELD = auto()
    IDENTIFIER = auto()
    LEFT_DELIMITER = auto()
    LEFT_PAREN = auto()
    NUMBER = auto()
    PIPE = auto()
    RAW_STRING = auto()
    RIGHT_DELIMITER = auto()
    RIGHT_PAREN = auto()
    SPACE = auto()
    STRING = auto()
    TEXT = auto()
    VARIABLE = auto()
    DOT = auto()
    NIL = auto()
    KEYWORD = auto()
    """One of `block`, `break`, `continue`, `define`, `else`, `end`, `if`, `range`, `template`, `with`: the value."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token. `position` is an offset in characters, and `line` counts from 1."""

    kind: Kind
    position: int
    value: str
    line: int

    def __str__(self) -> str:
        """Return the token as Go's parse errors show it."""
        if self.kind is Kind.EOF:
            return "EOF"
        if self.kind is Kind.ERROR:
            return self.value
        if self.kind in (Kind.KEYWORD, Kind.DOT, Kind.NIL):
            return f"<{self.value}>"
        # Go measures the token in bytes and cuts it in characters.
        if len(self.value.encode(errors="surrogatepass")) > 10:
            return gojson.quote(self.value[:10]) + "..."
        return gojson.quote(self.value)


_SPACES: Final = " \t\r\n"
_KEYWORDS: Final = frozenset(("block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"))
_NUMBER: Final = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]*)?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?|0[bB][01_]*(?:\.[01_]*)?|[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)i?"
)
_SINGLE: Final = {"=": Kind.ASSIGN, "|": Kind.PIPE}


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a template. The last is EOF, or an ERROR whose value is Go's text."""
    return _Lexer(text).run()


class _LexError(Exception):
    """Ends the scan. Its text becomes the value of the ERROR token."""


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        # Lines are found by bisection. Counting newlines for each token would be quadratic.
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._at = 0
        self._start = 0
        self._depth = 0

    def run(self) -> Iterator[Token]:
        try:
            yield from self._scan_text()
        except _LexError as error:
            yield self._token(Kind.ERROR, str(error))
            return
        self._start = len(self._text)
        yield self._token(Kind.EOF, "EOF")

    def _token(self, kind: Kind, value: str) -> Token:
        return Token(kind, self._start, value, 1 + bisect_left(self._newlines, self._start))

    def _emit(self, kind: Kind) -> Token:
        token = self._token(kind, self._text[self._start : self._at])
        self._start = self._at
        return token

    def _scan_text(self) -> Iterator[Token]:
        text = self._text
        while (found := text.find("{{", self._at)) >= 0:
            # `{{-` trims only if white space follows: `{{-3}}` is the number -3.
            trims = (
                text[found + 2 : found + 3] == "-" and text[found + 3 : found + 4] in _SPACES and found + 3 < len(text)
            )
            end = found
            if trims:
                while end > self._start and text[end - 1] in _SPACES:
                    end -= 1
            if end > self._start:
                self._at = end
                yield self._emit(Kind.TEXT)
            # A comment leaves no token, so that the texts around it stay two texts, as in Go.
            self._start = found
            after = found + 4 if trims else found + 2
            if text.startswith("/*", after):
                self._start = after
                self._skip_comment(after + 2)
                continue
            self._at = found + 2
            yield self._emit(Kind.LEFT_DELIMITER)
            self._at = self._start = after
            yield from self._scan_action()
        if self._at < len(text):
            self._at = len(text)
            yield self._emit(Kind.TEXT)

    def _skip_comment(self, begin: int) -> None:
        end = self._text.find("*/", begin)
        if end < 0:
            raise _LexError("unclosed comment")
        self._at = end + 2
        closes, trims = self._right_delimiter()
        if not closes:
            raise _LexError("comment ends before closing delimiter")
        self._leave(trims)

    def _right_delimiter(self) -> tuple[bool, bool]:
        """Return whether a right delimiter comes next, and whether it trims the white space after it."""
        text, at = self._text, self._at
        if text.startswith("-}}", at + 1) and text[at] in _SPACES:
            return True, True
        return text.startswith("}}", at), False

    def _leave(self, trims: bool) -> None:
        self._at += 4 if trims else 2
        if trims:
            while self._at < len(self._text) and self._text[self._at] in _SPACES:
                self._at += 1
        self._start = self._at

    def _scan_action(self) -> Iterator[Token]:
        self._depth = 0
        while True:
            closes, trims = self._right_delimiter()
            # Go reports an open parenthesis here, before it reads the delimiter.
            if closes:
                if self._depth:
                    raise _LexError("unclosed left paren")
                if trims:
                    self._start = self._at + 2
                token = self._token(Kind.RIGHT_DELIMITER, "}}")
                self._leave(trims)
                yield token
                return
            yield self._inside()

    def _inside(self) -> Token:
        text = self._text
        if self._at >= len(text):
            raise _LexError("unclosed action")
        char = text[self._at]
        if char in _SPACES:
            return self._space()
        self._at += 1
        if char in _SINGLE:
            return self._emit(_SINGLE[char])
        if char == ":":
            if text[self._at : self._at + 1] != "=":
                raise _LexError("expected :=")
            self._at += 1
            return self._emit(Kind.DECLARE)
        if char in "\"'`":
            return self._quoted(char)
        # A point before a digit begins a number.
        following = text[self._at : self._at + 1]
        if char == "$" or (char == "." and following and not "0" <= following <= "9"):
            return self._field_or_variable(char)
        if char in "+-." or "0" <= char <= "9":
            self._at -= 1
            return self._number()
        if char == "_" or char.isalpha() or char.isdecimal():
            return self._identifier()
        if char == "(":
            self._depth += 1
            return self._emit(Kind.LEFT_PAREN)
        if char == ")":
            self._depth -= 1
            if self._depth < 0:
                raise _LexError("unexpected right paren")
            return self._emit(Kind.RIGHT_PAREN)
        if " " <= char <= "~":
            return self._emit(Kind.CHAR)
        raise _LexError(f"unrecognized character in action: {_unicode(char)}")

    def _space(self) -> Token:
        while self._at < len(self._text) and self._text[self._at] in _SPACES:
            self._at += 1
        if self._text.startswith("-}}", self._at) and self._at - 1 > self._start:
            # The last of several spaces belongs to a trimming delimiter. The caller handles a single one.
            self._at -= 1
        return self._emit(Kind.SPACE)

    def _quoted(self, quote: str) -> Token:
        what, kind = {
            '"': ("quoted string", Kind.STRING),
            "'": ("character constant", Kind.CHAR_CONSTANT),
            "`": ("raw quoted string", Kind.RAW_STRING),
        }[quote]
        text = self._text
        while self._at < len(text):
            char = text[self._at]
            self._at += 1
            if char == quote:
                return self._emit(kind)
            # A raw string has no escapes and may span lines.
            if quote == "`":
                continue
            if char == "\\" and self._at < len(text) and text[self._at] != "\n":
                self._at += 1
            elif char in "\\\n":
                break
        raise _LexError(f"unterminated {what}")

    def _words(self) -> None:
        """Consume letters, digits and underscores."""
        text = self._text
        while self._at < len(text):
            char = text[self._at]
            if not (char == "_" or char.isalpha() or char.isdecimal()):
                break
            self._at += 1

    def _terminated(self) -> bool:
        char = self._text[self._at : self._at + 1]
        return not char or char in _SPACES + ".,|:)(" or self._text.startswith("}}", self._at)

    def _field_or_variable(self, char: str) -> Token:
        kind = Kind.VARIABLE if char == "$" else Kind.FIELD
        if self._terminated():
            return self._emit(Kind.VARIABLE if char == "$" else Kind.DOT)
        self._words()
        if not self._terminated():
            raise _LexError(f"bad character {_unicode(self._text[self._at])}")
        return self._emit(kind)

    def _identifier(self) -> Token:
        self._words()
        word = self._text[self._start : self._at]
        if not self._terminated():
            raise _LexError(f"bad character {_unicode(self._text[self._at])}")
        if word in _KEYWORDS:
            return self._emit(Kind.KEYWORD)
        if word == "nil":
            return self._emit(Kind.NIL)
        return self._emit(Kind.BOOL if word in ("true", "false") else Kind.IDENTIFIER)

    def _number(self) -> Token:
        whole = self._scan_number()
        if whole and self._text[self._at : self._at + 1] in ("+", "-"):
            # A complex constant is a real and an imaginary number without a space between.
            if self._scan_number() and self._text[self._at - 1] == "i":
                return self._emit(Kind.COMPLEX)
            whole = False
        if not whole:
            raise _LexError(f"bad number syntax: {gojson.quote(self._text[self._start : self._at])}")
        return self._emit(Kind.NUMBER)

    def _scan_number(self) -> bool:
        match = _NUMBER.match(self._text, self._at)
        self._at = match.end() if match else self._at
        char = self._text[self._at : self._at + 1]
        # Go takes the offending character into the text that its error shows.
        if char and (char == "_" or char.isalpha() or char.isdecimal()):
            self._at += 1
            return False
        return True


def _unicode(char: str) -> str:
    """Format a character like Go's %#U."""
    shown = f" '{char}'" if char.isprintable() else ""
    return f"U+{ord(char):04X}{shown}"
