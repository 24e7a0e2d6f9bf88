"""Go's JSON scanner: which text is JSON, where a value ends, and what is said when it is none.

The tokens are found by regular expressions; only a text that is refused is looked at character by character. Nothing
after the first value is looked at, and the depth is bounded as in Go instead of by Python's stack. Long texts are read
in pieces, so that no call into native code keeps the interpreter for long.
"""

import codecs
import re
import sys
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final, Literal

from puna.go import json as gojson
from puna.go.json import replace_lone_surrogates
from puna.offload import BYTES, CHUNK, check_cancelled

Kind = Literal["object", "array", "string", "number", "bool", "null"]

DEEPEST: Final = 10_000
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_LITERALS: Final[dict[str, tuple[str, Kind, bool | None]]] = {
    "t": ("true", "bool", True),
    "f": ("false", "bool", False),
    "n": ("null", "null", None),
}
_TEXT: Final = re.compile(
    r'(?:[^"\\\x00-\x1f]+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
)
"""The content of a string, as far as it is complete."""
_SCALAR: Final = (
    r'(?:"([^"\\\x00-\x1f]{0,4096}+)"|(-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{1,99})?(?:[eE][-+]?[0-9]{1,9})?)|(true|false|null))'
    r"[ \t\r\n]*,[ \t\r\n]*"
)
_ELEMENT: Final = re.compile(_SCALAR)
"""A usual element of an array with the comma behind it: most of a long array is made of such."""
_MEMBER: Final = re.compile(r'"([^"\\\x00-\x1f]{0,4096}+)"[ \t\r\n]*:[ \t\r\n]*' + _SCALAR)
"""A usual member of an object with the comma behind it."""
_FIRST_HALF: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")
"""The first of two escapes that are one character."""
_EVERY: Final = 4096
"""Values between two looks at whether the request is still wanted."""
_ESCAPES: Final = frozenset('bfnrt\\/"')
_HEX: Final = frozenset("0123456789abcdefABCDEF")


class BodyError(ValueError):
    """A body that Go's decoder refuses; the text is Go's."""


class TooManyValuesError(BodyError):
    """A body has more values than a body may have. Go knows no such bound."""

    def __init__(self, field: str, limit: int) -> None:
        place = f"{gojson.quote(field[:100])}: " if field else ""
        super().__init__(f"{place}a request's JSON may have at most {limit} values")


class EmptyBodyError(BodyError):
    """There is nothing but white space; Go says EOF."""

    def __init__(self) -> None:
        super().__init__("EOF")


@dataclass(slots=True)
class Node:
    """A value and its place in the text."""

    kind: Kind
    start: int
    end: int
    value: Any
    """Of an object: list of (key, Node), repeated keys and all. Of an array: list of Node. Of a string: str. Of a bool:
    bool. Of a number and null: None."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the first value in it."""

    text: str
    """Bytes that are no UTF-8 stand in it as lone surrogates."""
    root: Node
    values: int = 0
    """How many values were read."""

    @property
    def weight(self) -> int:
        """The weight of going through all of it, for puna.offload."""
        return self.values + len(self.text) // BYTES

    def raw(self, node: Node) -> str:
        """Return the text of a value as it was sent, with U+FFFD for bytes that are no UTF-8."""
        return replace_lone_surrogates(self.text[node.start : node.end])


def parse(body: bytes, most: int = sys.maxsize) -> Document:
    """Read the first value of a body, which may have `most` values in it, itself included.

    Raises BodyError; EmptyBodyError when there is none.
    """
    text = _decoded(body)
    if len(text) == _space(text, 0):
        raise EmptyBodyError
    scanner = _Scanner(text, most)
    root = scanner.value()
    return Document(text, root, scanner.values)


def _decoded(body: bytes) -> str:
    if len(body) <= CHUNK:
        return body.decode("utf-8", "surrogateescape")
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    pieces = [decoder.decode(body[at : at + CHUNK]) for at in range(0, len(body), CHUNK)]
    return "".join([*pieces, decoder.decode(b"", final=True)])


def parse_whole(text: str) -> Document:
    """Read a text that is one value and nothing else, as Go's Unmarshal does. Raises BodyError."""
    if len(text) == (start := _space(text, 0)):
        raise BodyError("unexpected end of JSON input")
    try:
        root = _Scanner(text).value()
    except BodyError as error:
        raise BodyError(str(error).replace("unexpected EOF", "unexpected end of JSON input")) from None
    if (rest := _space(text, root.end)) < len(text):
        raise _unexpected(text, rest, "after top-level value")
    assert start <= root.start
    return Document(text, root)


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _unexpected(text: str, at: int, where: str) -> BodyError:
    if at >= len(text):
        return BodyError("unexpected EOF")
    # Go looks at bytes: of a longer character it names the first, as if that were a character of its own.
    char = chr(text[at].encode("utf-8", "surrogateescape")[0])
    if char == "'":
        name = r"'\''"
    elif char == '"':
        name = "'\"'"
    else:
        name = "'" + gojson.quote(char)[1:-1] + "'"
    return BodyError(f"invalid character {name} {where}")


class Merged(Node):
    """An object that several keys of one name made together. Its list is its own."""

    __slots__ = ()


class _Scanner:
    def __init__(self, text: str, most: int = sys.maxsize) -> None:
        self._text = text
        self._open: list[Node] = []
        self._keys: list[str] = []
        self._most = most
        self.values = 0
        self._look = 0

    def value(self) -> Node:
        text = self._text
        at = _space(text, 0)
        while True:
            node = self._begin(at)
            if node is None:  # a container that is not empty was opened
                at = self._next_item(self._open[-1].start + 1)
                continue
            at = node.end
            while self._open:
                parent = self._open[-1]
                self._add(parent, node)
                at = _space(text, at)
                char = text[at : at + 1]
                if char == ",":
                    at = self._next_item(at + 1)
                    break
                if char != ("}" if parent.kind == "object" else "]"):
                    where = "after object key:value pair" if parent.kind == "object" else "after array element"
                    raise _unexpected(text, at, where)
                at = parent.end = at + 1
                node = self._open.pop()
            else:
                return node

    def _add(self, parent: Node, node: Node) -> None:
        if parent.kind == "object":
            parent.value.append((self._keys.pop(), node))
        else:
            parent.value.append(node)

    def _next_item(self, at: int) -> int:
        """Go to the value that follows, past its key if it stands in an object."""
        text = self._text
        parent = self._open[-1]
        at = self._usual(parent, _space(text, at))
        if parent.kind == "array":
            return at
        if text[at : at + 1] != '"':
            raise _unexpected(text, at, "looking for beginning of object key string")
        key, at = self._string(at)
        at = _space(text, at)
        if text[at : at + 1] != ":":
            raise _unexpected(text, at, "after object key")
        self._keys.append(key)
        return _space(text, at + 1)

    def _usual(self, parent: Node, at: int) -> int:
        """Take usual items up to one that is not, or that is the last; return where that begins."""
        text, in_object = self._text, parent.kind == "object"
        match, shift, add = (_MEMBER if in_object else _ELEMENT).match, int(in_object), parent.value.append
        while found := match(text, at):
            self.values += 1
            if self.values >= self._look:
                if in_object:
                    self._keys.append(found[1])
                self._check_values()
                if in_object:
                    self._keys.pop()
            start, end = found.span(found.lastindex or 0)
            kind = (found.lastindex or 0) - shift
            if kind == 1:
                node = Node("string", start - 1, end + 1, replace_lone_surrogates(text[start:end]))
            elif kind == 2:
                node = Node("number", start, end, None)
            else:
                _, name, truth = _LITERALS[text[start]]
                node = Node(name, start, end, truth)
            add((replace_lone_surrogates(found[1]), node) if in_object else node)
            at = found.end()
        return at

    def _begin(self, at: int) -> Node | None:
        """Read the value that begins here, whole if it is not a container with something in it."""
        self.values += 1
        if self.values >= self._look:
            self._check_values()
        text = self._text
        char = text[at : at + 1]
        if char == '"':
            value, end = self._string(at)
            return Node("string", at, end, value)
        if char in ("{", "["):
            if len(self._open) >= DEEPEST:
                raise _unexpected(text, at, "exceeded max depth")
            node = Node("object" if char == "{" else "array", at, -1, [])
            close = _space(text, at + 1)
            if text[close : close + 1] == ("}" if char == "{" else "]"):
                node.end = close + 1
                return node
            self._open.append(node)
            return None
        if char in _LITERALS:
            word, kind, truth = _LITERALS[char]
            for offset in range(1, len(word)):
                if text[at + offset : at + offset + 1] != word[offset]:
                    raise _unexpected(text, at + offset, f"in literal {word} (expecting '{word[offset]}')")
            return Node(kind, at, at + len(word), truth)
        match = _NUMBER.match(text, at)
        if match is None:
            if char == "-":
                raise _unexpected(text, at + 1, "in numeric literal")
            raise _unexpected(text, at, "looking for beginning of value")
        self._check_number_end(match)
        return Node("number", at, match.end(), None)

    def _check_number_end(self, match: re.Match[str]) -> None:
        text, end = self._text, match.end()
        char = text[end : end + 1]
        if char == "." and "." not in match[0] and "e" not in match[0].lower():
            raise _unexpected(text, end + 1, "after decimal point in numeric literal")
        if char in ("e", "E") and "e" not in match[0].lower():
            sign = text[end + 1 : end + 2] in ("+", "-") and bool(text[end + 1 : end + 2])
            raise _unexpected(text, end + 1 + sign, "in exponent of numeric literal")

    def _check_values(self) -> None:
        check_cancelled()
        self._look = min(self.values + _EVERY, self._most + 1)
        if self.values > self._most:
            in_object = self._open and self._open[0].kind == "object"
            raise TooManyValuesError(self._keys[0] if in_object else "", self._most)

    def _string(self, at: int) -> tuple[str, int]:
        text = self._text
        if len(text) > CHUNK:
            quote = text.find('"', at + 1, at + CHUNK)
            if quote < 0 or text[quote - 1] == "\\":  # longer than a piece, perhaps
                return self._long_string(at + 1)
        try:
            value, end = scanstring(text, at + 1, True)
        except ValueError:
            raise self._bad_string(at + 1) from None
        return replace_lone_surrogates(value), end

    def _long_string(self, at: int) -> tuple[str, int]:
        text, pieces = self._text, []
        while True:
            check_cancelled()
            match = _TEXT.match(text, at, at + CHUNK)
            assert match is not None
            piece = match[0]
            if len(piece) > 6 and _FIRST_HALF.match(piece, len(piece) - 6):
                before = piece[:-6]
                if (len(before) - len(before.rstrip("\\"))) % 2 == 0:  # else the backslash itself is escaped
                    piece = before
            pieces.append(replace_lone_surrogates(scanstring(piece + '"', 0, True)[0]))
            at += len(piece)
            if text[at : at + 1] == '"':
                return "".join(pieces), at + 1
            if not piece:
                raise self._bad_string(at)

    def _bad_string(self, at: int) -> BodyError:
        text = self._text
        while at < len(text) and text[at] >= " ":
            at += 1
            if text[at - 1] != "\\":
                continue
            escape = text[at : at + 1]
            if escape == "u":
                for _ in range(4):
                    at += 1
                    if text[at : at + 1] not in _HEX:
                        return _unexpected(text, at, r"in \u hexadecimal character escape")
            elif escape not in _ESCAPES:
                return _unexpected(text, at, "in string escape code")
            at += 1
        return _unexpected(text, at, "in string literal")
