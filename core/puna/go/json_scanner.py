"""Go's JSON scanner: it accepts the texts that Go accepts, and reports Go's errors for the others.

The scanner keeps the open containers in a list, so that Go's limit on depth applies and not Python's stack. In the main
loop, `_begin` reads a scalar or opens a container, and `value` closes containers and moves past commas. Most items of
long arrays and objects match one regular expression each (`_usual`), which makes them cheap. Only a malformed token is
examined character by character, to find the byte that Go's error names. A body ends after its first value; the text
behind it is ignored, as Go's Decoder does.

Each node has its place in the text, because some fields are passed on as they were sent. Long strings are read in
pieces, because a call into native code holds the interpreter lock.
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
# The quantifier is possessive, so that a text without an end costs one pass and no backtracking.
_TEXT: Final = re.compile(
    r'(?:[^"\\\x00-\x1f]+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+'
)
"""The longest prefix of a string's content that ends between two characters or escapes."""
# Lengths are bounded so that one match stays short. Longer items take the main loop.
_SCALAR: Final = (
    r'(?:"([^"\\\x00-\x1f]{0,4096}+)"|(-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{1,99})?(?:[eE][-+]?[0-9]{1,9})?)|(true|false|null))'
    r"[ \t\r\n]*,[ \t\r\n]*"
)
_ELEMENT: Final = re.compile(_SCALAR)
"""A scalar without escapes and the comma after it, as most elements of long arrays are."""
_MEMBER: Final = re.compile(r'"([^"\\\x00-\x1f]{0,4096}+)"[ \t\r\n]*:[ \t\r\n]*' + _SCALAR)
"""A key without escapes, such a scalar, and the comma after it."""
_FIRST_HALF: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")
"""The escape of a high surrogate, which may be the first half of a pair."""
_EVERY: Final = 4096
"""Values between two checks for cancellation."""
_ESCAPES: Final = frozenset('bfnrt\\/"')
_HEX: Final = frozenset("0123456789abcdefABCDEF")


class BodyError(ValueError):
    """A body that Go's decoder refuses. The text is Go's."""


class TooManyValuesError(BodyError):
    """A body has more values than the limit allows. Go has no such limit."""

    def __init__(self, field: str, limit: int) -> None:
        place = f"{gojson.quote(field[:100])}: " if field else ""
        super().__init__(f"{place}a request's JSON may have at most {limit} values")


class EmptyBodyError(BodyError):
    """A body is empty or white space, for which Go reports EOF."""

    def __init__(self) -> None:
        super().__init__("EOF")


@dataclass(slots=True)
class Node:
    """A JSON value and its place in the text."""

    kind: Kind
    start: int
    end: int
    value: Any
    """An object has a list of (key, Node) with all repeated keys, an array a list of Node, a string a str, a boolean a
    bool. A number and null have None."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text and its first value."""

    text: str
    """Invalid UTF-8 bytes are lone surrogates in it (surrogateescape)."""
    root: Node
    values: int = 0
    """Number of values in the document."""

    @property
    def weight(self) -> int:
        """The cost of walking over the document, for puna.offload."""
        return self.values + len(self.text) // BYTES

    def raw(self, node: Node) -> str:
        """Return the text of a value as sent, with U+FFFD for invalid UTF-8."""
        return replace_lone_surrogates(self.text[node.start : node.end])


def parse(body: bytes, most: int = sys.maxsize) -> Document:
    """Read the first value of a body, with at most `most` values in total.

    Raises BodyError, and EmptyBodyError if there is no value.
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
    # Decoding in chunks gives other threads the interpreter lock between two of them.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    pieces = [decoder.decode(body[at : at + CHUNK]) for at in range(0, len(body), CHUNK)]
    return "".join([*pieces, decoder.decode(b"", final=True)])


def parse_whole(text: str) -> Document:
    """Read a text that holds exactly one value, like Go's Unmarshal. Raises BodyError."""
    if len(text) == (start := _space(text, 0)):
        raise BodyError("unexpected end of JSON input")
    try:
        root = _Scanner(text).value()
    except BodyError as error:
        # Go's Unmarshal has its own words for a text that ends early, where its Decoder reports an unexpected EOF.
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
    # Go scans bytes. For a character of several bytes its error names the first byte, as a character of its own.
    char = chr(text[at].encode("utf-8", "surrogateescape")[0])
    # Go quotes a byte as a character literal: a single quote is escaped there and a double quote is not.
    if char == "'":
        name = r"'\''"
    elif char == '"':
        name = "'\"'"
    else:
        name = "'" + gojson.quote(char)[1:-1] + "'"
    return BodyError(f"invalid character {name} {where}")


class Merged(Node):
    """An object merged from repeated keys. Unlike other nodes, it owns its list, and the decoder may change it."""

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
            if node is None:  # a non-empty container was opened
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
                # A closed container is itself an item of the container around it, so the loop goes on with it.
                node = self._open.pop()
            else:
                return node

    def _add(self, parent: Node, node: Node) -> None:
        if parent.kind == "object":
            parent.value.append((self._keys.pop(), node))
        else:
            parent.value.append(node)

    def _next_item(self, at: int) -> int:
        """Return the start of the next value that needs the main loop, after its key if it is in an object."""
        text = self._text
        parent = self._open[-1]
        # The fast expressions include the comma, so the last item of a container never matches and the main loop sees
        # its end.
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
        """Add items that match the fast expression. Return the start of the first that does not match."""
        text, in_object = self._text, parent.kind == "object"
        match, shift, add = (_MEMBER if in_object else _ELEMENT).match, int(in_object), parent.value.append
        while found := match(text, at):
            self.values += 1
            # One comparison serves both bounds: `_look` is the next check for cancellation, or the first value beyond
            # the limit.
            if self.values >= self._look:
                if in_object:
                    # TooManyValuesError names the first open key, and this item's key is not among the open ones.
                    self._keys.append(found[1])
                self._check_values()
                if in_object:
                    self._keys.pop()
            start, end = found.span(found.lastindex or 0)
            # The group that matched tells the kind. In an object the key is group 1, hence the shift.
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
        """Read a scalar or an empty container and return its node, or open a container and return None."""
        self.values += 1
        if self.values >= self._look:
            self._check_values()
        text = self._text
        char = text[at : at + 1]
        if char == '"':
            value, end = self._string(at)
            return Node("string", at, end, value)
        if char in ("{", "["):
            # Go's own limit, with Go's text for the bracket that exceeds it.
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
        # The expression stops at the longest valid number. A point or an exponent after it has no digits, which is Go's
        # error in the number itself; any other character is an error of the item around it.
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
        # A short body is read in one call: no string in it can be long.
        if len(text) > CHUNK:
            quote = text.find('"', at + 1, at + CHUNK)
            if quote < 0 or text[quote - 1] == "\\":  # the string may be longer than a piece
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
            # A chunk may end between the halves of a surrogate pair. Then the first half waits for the next chunk.
            piece = match[0]
            if len(piece) > 6 and _FIRST_HALF.match(piece, len(piece) - 6):
                before = piece[:-6]
                if (len(before) - len(before.rstrip("\\"))) % 2 == 0:  # otherwise the backslash is itself escaped
                    piece = before
            pieces.append(replace_lone_surrogates(scanstring(piece + '"', 0, True)[0]))
            at += len(piece)
            if text[at : at + 1] == '"':
                return "".join(pieces), at + 1
            if not piece:
                raise self._bad_string(at)

    def _bad_string(self, at: int) -> BodyError:
        text = self._text
        # The string is known to be malformed. Reading it again by characters finds the byte that Go's error names.
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
