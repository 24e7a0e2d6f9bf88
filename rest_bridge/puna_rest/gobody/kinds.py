"""The Go types of request bodies.

Each class decodes JSON the way encoding/json decodes into its Go type. The name of a type occurs in error texts.
"""

import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from puna.go.json_scanner import Document, Merged, Node
from puna_rest.gobody.decoder import AbortError, Decoder, Type, unmarshal

_INTEGER: Final = re.compile(r"-?[0-9]+")
_FLOAT32_LARGEST: Final = 3.4028235677973366e38  # halfway to 2**128; smaller numbers round to a float32
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/\r\n]")
_FOLDED: Final = {"\u017f": "S", "\u212a": "K"}  # the only characters beyond ASCII that fold to an ASCII letter


class _Plain(Type):
    """A type whose values are those of one kind of JSON."""

    kind = ""

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode the kind; others are a mismatch, and null keeps `old`."""
        if node.kind == self.kind:
            return node.value
        if node.kind != "null":
            decoder.mismatch(node.kind, self.go)
        return old


class String(_Plain):
    """Go's string."""

    kind = "string"
    zero = ""

    def __init__(self, go: str = "string") -> None:
        self.go = go


class Bool(_Plain):
    """Go's bool."""

    kind = go = "bool"
    zero = False


class Int(Type):
    """Go's int: 64 bits. JSON numbers with a fraction or an exponent do not fit."""

    go = "int"
    zero = 0

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode integers; other kinds are a mismatch, and null keeps `old`."""
        if node.kind == "number":
            text = decoder.document.raw(node)
            if _INTEGER.fullmatch(text) and len(text) < 21 and -(2**63) <= int(text) < 2**63:
                return int(text)
            decoder.mismatch(f"number {text}", self.go)
        elif node.kind != "null":
            decoder.mismatch(node.kind, self.go)
        return old


class Float(Type):
    """Go's float64 or float32."""

    zero = 0.0

    def __init__(self, bits: int = 64) -> None:
        self.go = f"float{bits}"
        self._limit = _FLOAT32_LARGEST if bits == 32 else float("inf")

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode numbers within the range of the type."""
        if node.kind == "number":
            text = decoder.document.raw(node)
            if abs(float(text)) < self._limit:
                return float(text)
            decoder.mismatch(f"number {text}", self.go)
        elif node.kind != "null":
            decoder.mismatch(node.kind, self.go)
        return old


class Anything(Type):
    """Go's any. Decodes to the node; `plain` converts it to a Python value."""

    go = "interface {}"

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Decode any value. A number beyond float64 is a mismatch."""
        check_numbers(decoder, node)
        return None if node.kind == "null" else node


class AnyMap(Type):
    """Go's map[string]any. Decodes to the node."""

    go = "map[string]interface {}"

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode objects; other kinds are a mismatch, and null keeps `old`."""
        if node.kind == "null":
            return None
        if node.kind != "object":
            decoder.mismatch(node.kind, self.go)
            return old
        # Go decodes numbers in the map to float64 at once, and so reports those that do not fit.
        check_numbers(decoder, node)
        # A list of one's own lets many repeated keys be merged in linear time.
        if isinstance(old, Merged):
            old.value.extend(node.value)
            return old
        if isinstance(old, Node):  # a repeated key extends the map of the earlier one
            return Merged("object", node.start, node.end, [*old.value, *node.value])
        return node


class StringMap(Type):
    """Go's map[string]string."""

    go = "map[string]string"

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode objects whose values are strings."""
        if node.kind == "null":
            return None
        if node.kind != "object":
            decoder.mismatch(node.kind, self.go)
            return old
        out: dict[str, object] = old if isinstance(old, dict) else {}  # the map of an earlier key of the same name
        for key, value in node.value:
            # Go decodes each value into a zero string, so null gives "" and not the older value.
            out[key] = String().decode(decoder, value, "")
        return out


class Raw(Type):
    """Go's json.RawMessage: the text as sent, including "null"; empty when the field is absent."""

    go = "json.RawMessage"
    zero = ""

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Return the text of any value."""
        return decoder.document.raw(node)


class Bytes(Type):
    """Go's []byte: padded base64, in which line breaks are allowed, or an array of numbers up to 255."""

    zero = b""

    def __init__(self, go: str) -> None:
        self.go = go

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode base64, and arrays like any slice."""
        if node.kind == "string":
            try:
                return decode_base64(node.value)
            except ValueError as error:
                decoder.save(str(error))
        elif node.kind == "array":
            return bytes([self._byte(decoder, each) for each in node.value])
        elif node.kind != "null":
            decoder.mismatch(node.kind, self.go)
        return old

    def _byte(self, decoder: Decoder, node: Node) -> int:
        if node.kind == "number":
            # The length first: int() of a long number takes quadratic time.
            text = decoder.document.raw(node)
            if text.isdigit() and len(text) < 4 and int(text) < 256:
                return int(text)
            decoder.mismatch(f"number {text}", "uint8")
        elif node.kind != "null":
            decoder.mismatch(node.kind, "uint8")
        return 0


class Pointer(Type):
    """A Go pointer; None when the field is absent or null."""

    def __init__(self, kind: Type) -> None:
        self.go = kind.go
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode null and the values of the type."""
        if node.kind == "null":
            return None
        return self._kind.decode(decoder, node, self._kind.zero if old is None else old)


class Slice(Type):
    """A Go slice; None when the field is absent or null. An empty array is an empty list."""

    def __init__(self, kind: Type, go: str = "") -> None:
        self.go = go or f"[]{kind.go}"
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode arrays; other kinds are a mismatch, and null keeps `old`."""
        if node.kind == "null":
            return None
        if node.kind != "array":
            decoder.mismatch(node.kind, self.go)
            return old
        return [self._kind.decode(decoder, each, self._kind.zero) for each in node.value]


class Struct(Type):
    """A Go struct: a dict of all fields. A key matches a field of exactly its name, else one that differs in case."""

    def __init__(self, go: str, fields: Mapping[str, Type]) -> None:
        self.go = go
        self._name = "" if go.startswith("struct {") else go.rpartition(".")[2]
        self._fields = fields
        # Reversed, so that of two names that fold alike the first field wins, as in Go.
        self._folded = {fold(name): name for name in reversed(list(fields))}
        self.zero: Mapping[str, object] = {name: kind.zero for name, kind in fields.items()}

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode objects. Unknown fields are ignored."""
        assert isinstance(old, Mapping)
        if node.kind != "object":
            if node.kind != "null":
                decoder.mismatch(node.kind, self.go)
            return old
        # A repeated key decodes over the value of the earlier one, field by field.
        out = dict(old)
        outer = decoder.struct
        for key, value in node.value:
            name = key if key in self._fields else self._folded.get(fold(key), "")
            if not name:
                continue
            # Not in a finally clause: after an AbortError, Go's error names the struct that was being decoded.
            decoder.struct = self._name
            decoder.path.append(name)
            out[name] = self._fields[name].decode(decoder, value, out[name])
            decoder.path.pop()
            decoder.struct = outer
        return out


class Custom(Type):
    """A type with an UnmarshalJSON: a function of document and node that may raise AbortError."""

    def __init__(self, go: str, function: Callable[[Document, Node], object], zero: object = None) -> None:
        self.go = go
        self.zero = zero
        self._function = function

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Call the function."""
        return self._function(decoder.document, node)


class Later(Type):
    """A reference to a type that is built later, for types that contain themselves."""

    def __init__(self, go: str, kind: Callable[[], Type]) -> None:
        self.go = go
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Decode with the type."""
        kind = self._kind()
        return kind.decode(decoder, node, kind.zero)


class Inner(Type):
    """A type whose UnmarshalJSON only calls json.Unmarshal: its first saved error ends the decoding outside."""

    def __init__(self, kind: Type, go: str = "") -> None:
        self.go = go or kind.go
        self.zero = kind.zero
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Decode with the type."""
        return unmarshal(decoder.document, node, self._kind)


def anonymous(**fields: str) -> str:
    """Return Go's description of an anonymous struct type. The types of its fields must be single words."""
    parts = [f'{name.capitalize()} {go} "json:\\"{name}\\""' for name, go in fields.items()]
    return "struct { " + "; ".join(parts) + " }"


def fold(name: str) -> str:
    """Return a field name in Go's folded form, by which names that differ in case match."""
    out = "".join(_FOLDED.get(char, char) for char in name) if not name.isascii() else name
    return "".join(char.upper() if char.isascii() else char for char in out)


def check_numbers(decoder: Decoder, node: Node) -> None:
    """Save an error for the first number that exceeds float64."""
    # A list instead of recursion, because bodies may be nested deeper than Python's stack. Reversed, so that the first
    # number in the text is reported.
    queue = [node]
    while queue:
        each = queue.pop()
        if each.kind == "object":
            queue.extend(value for _, value in reversed(each.value))
        elif each.kind == "array":
            queue.extend(reversed(each.value))
        elif each.kind == "number":
            text = decoder.document.raw(each)
            if abs(float(text)) == float("inf"):
                decoder.mismatch(f"number {text}", "float64")


def plain(document: Document, node: Node | None) -> Any:  # noqa: ANN401 - a JSON value has no narrower type
    """Return a node as a Python value: numbers are floats, and the last of repeated keys wins.

    AbortError: the value is nested too deeply.
    """
    if node is None:
        return None
    try:
        return _plain(document, node)
    except RecursionError:
        raise AbortError("exceeded max depth") from None


def _plain(document: Document, node: Node) -> Any:  # noqa: ANN401
    if node.kind == "object":
        return {key: _plain(document, value) for key, value in node.value}
    if node.kind == "array":
        return [_plain(document, value) for value in node.value]
    if node.kind == "number":
        return float(document.raw(node))
    return node.value


def decode_base64(text: str) -> bytes:
    """Decode standard padded base64, ignoring line breaks. Raises ValueError with Go's text."""
    # The fast path accepts exactly what Go accepts; only a refused text needs the byte that Go names.
    groups = text.replace("\n", "").replace("\r", "")
    try:
        if len(groups) % 4 == 0:  # binascii accepts a lone "="
            return binascii.a2b_base64(groups, strict_mode=True)
    except ValueError:
        pass
    raise ValueError(f"illegal base64 data at input byte {_illegal_byte(text.encode())}")


def _illegal_byte(data: bytes) -> int:
    """Return the offset that Go's error names. Go reads groups of four characters and skips line breaks."""
    alphabet = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    length = len(data)
    at = _last_group(data)
    while True:
        group = 0
        while group < 4:
            if at == length:
                return at - group
            byte = data[at]
            at += 1
            if byte in b"\r\n":
                continue
            if byte in alphabet:
                group += 1
                continue
            if byte != ord("="):
                return at - 1
            # Padding may replace the third and fourth characters alone.
            if group < 2:
                return at - 1
            if group == 2:
                while at < length and data[at] in b"\r\n":
                    at += 1
                if at == length:
                    return length
                if data[at] != ord("="):
                    return at - 1
                at += 1
            while at < length and data[at] in b"\r\n":
                at += 1
            return min(at, length)


def _last_group(data: bytes) -> int:
    """Return the offset of the first group of four with an invalid byte."""
    odd = _NOT_BASE64.search(data)
    at = odd.start() if odd else len(data)
    over = (at - data.count(b"\n", 0, at) - data.count(b"\r", 0, at)) % 4
    while over:
        at -= 1
        over -= data[at] not in b"\r\n"
    return at
