"""The Go types that request bodies are made of."""

import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from puna.go.json_scanner import Document, Merged, Node
from puna_rest.gobody.decoder import AbortError, Decoder, Type, unmarshal

_INTEGER: Final = re.compile(r"-?[0-9]+")
_FLOAT32_LARGEST: Final = 3.4028235677973366e38  # halfway to what would be the next float32: less is rounded down
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/\r\n]")
_FOLDED: Final = {"\u017f": "S", "\u212a": "K"}  # the two characters outside ASCII that Go folds to an ASCII letter


class String(Type):
    """string."""

    zero = ""

    def __init__(self, go: str = "string") -> None:
        self.go = go

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take strings."""
        if node.kind == "string":
            return node.value
        if node.kind != "null":
            decoder.mismatch(node.kind, self.go)
        return old


class Bool(Type):
    """bool."""

    go = "bool"
    zero = False

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take booleans."""
        if node.kind == "bool":
            return node.value
        if node.kind != "null":
            decoder.mismatch(node.kind, self.go)
        return old


class Int(Type):
    """int: 64 bits, written without fraction and exponent."""

    go = "int"
    zero = 0

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take integers."""
        if node.kind == "number":
            text = decoder.document.raw(node)
            if _INTEGER.fullmatch(text) and len(text) < 21 and -(2**63) <= int(text) < 2**63:
                return int(text)
            decoder.mismatch(f"number {text}", self.go)
        elif node.kind != "null":
            decoder.mismatch(node.kind, self.go)
        return old


class Float(Type):
    """float64 or float32."""

    zero = 0.0

    def __init__(self, bits: int = 64) -> None:
        self.go = f"float{bits}"
        self._limit = _FLOAT32_LARGEST if bits == 32 else float("inf")

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take numbers that are not too large."""
        if node.kind == "number":
            text = decoder.document.raw(node)
            if abs(float(text)) < self._limit:
                return float(text)
            decoder.mismatch(f"number {text}", self.go)
        elif node.kind != "null":
            decoder.mismatch(node.kind, self.go)
        return old


class Anything(Type):
    """any: the node itself; `plain` makes a Python value of it."""

    go = "interface {}"

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Take everything but numbers too large for float64."""
        check_numbers(decoder, node)
        return None if node.kind == "null" else node


class AnyMap(Type):
    """map[string]any: the node itself."""

    go = "map[string]interface {}"

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take objects."""
        if node.kind == "null":
            return None
        if node.kind != "object":
            decoder.mismatch(node.kind, self.go)
            return old
        check_numbers(decoder, node)
        if isinstance(old, Merged):
            old.value.extend(node.value)
            return old
        if isinstance(old, Node):  # Go adds to the map that an earlier key of the same name made
            return Merged("object", node.start, node.end, [*old.value, *node.value])
        return node


class StringMap(Type):
    """map[string]string."""

    go = "map[string]string"

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take objects of strings."""
        if node.kind == "null":
            return None
        if node.kind != "object":
            decoder.mismatch(node.kind, self.go)
            return old
        out: dict[str, object] = old if isinstance(old, dict) else {}  # one that an earlier key of the same name made
        for key, value in node.value:
            out[key] = String().decode(decoder, value, "")
        return out


class Raw(Type):
    """json.RawMessage: the text as it was sent, "null" included; empty when absent."""

    go = "json.RawMessage"
    zero = ""

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Take everything."""
        return decoder.document.raw(node)


class Bytes(Type):
    """[]byte: padded base64 with line breaks allowed, or an array of small numbers."""

    zero = b""

    def __init__(self, go: str) -> None:
        self.go = go

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take base64 texts, and arrays as of any other slice."""
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
            text = decoder.document.raw(node)
            if text.isdigit() and len(text) < 4 and int(text) < 256:
                return int(text)
            decoder.mismatch(f"number {text}", "uint8")
        elif node.kind != "null":
            decoder.mismatch(node.kind, "uint8")
        return 0


class Pointer(Type):
    """A pointer: None when absent or null."""

    def __init__(self, kind: Type) -> None:
        self.go = kind.go
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take null and what the type takes."""
        if node.kind == "null":
            return None
        return self._kind.decode(decoder, node, self._kind.zero if old is None else old)


class Slice(Type):
    """A slice: None when absent or null, which is not the same as empty."""

    def __init__(self, kind: Type, go: str = "") -> None:
        self.go = go or f"[]{kind.go}"
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take arrays."""
        if node.kind == "null":
            return None
        if node.kind != "array":
            decoder.mismatch(node.kind, self.go)
            return old
        return [self._kind.decode(decoder, each, self._kind.zero) for each in node.value]


class Struct(Type):
    """A struct: a dict with all its fields. Field names match ignoring case, the exact name first."""

    def __init__(self, go: str, fields: Mapping[str, Type]) -> None:
        self.go = go
        self._name = "" if go.startswith("struct {") else go.rpartition(".")[2]
        self._fields = fields
        self._folded = {fold(name): name for name in reversed(list(fields))}
        self.zero: Mapping[str, object] = {name: kind.zero for name, kind in fields.items()}

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Take objects; unknown fields are ignored."""
        assert isinstance(old, Mapping)
        if node.kind != "object":
            if node.kind != "null":
                decoder.mismatch(node.kind, self.go)
            return old
        out = dict(old)
        outer = decoder.struct
        for key, value in node.value:
            name = key if key in self._fields else self._folded.get(fold(key), "")
            if not name:
                continue
            decoder.struct = self._name
            decoder.path.append(name)
            out[name] = self._fields[name].decode(decoder, value, out[name])
            decoder.path.pop()
            decoder.struct = outer
        return out


class Custom(Type):
    """A type with a decoder of its own, which sees the value's document and node and raises AbortError."""

    def __init__(self, go: str, function: Callable[[Document, Node], object], zero: object = None) -> None:
        self.go = go
        self.zero = zero
        self._function = function

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Take what the function takes."""
        return self._function(decoder.document, node)


class Later(Type):
    """A type that is made later, since it contains itself."""

    def __init__(self, go: str, kind: Callable[[], Type]) -> None:
        self.go = go
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Take what the type takes."""
        kind = self._kind()
        return kind.decode(decoder, node, kind.zero)


class Inner(Type):
    """A type whose own decoder does no more than call Unmarshal again: its first error is the last."""

    def __init__(self, kind: Type, go: str = "") -> None:
        self.go = go or kind.go
        self.zero = kind.zero
        self._kind = kind

    def decode(self, decoder: Decoder, node: Node, _old: object) -> object:
        """Take what the type takes."""
        return unmarshal(decoder.document, node, self._kind)


def anonymous(**fields: str) -> str:
    """Return the Go name of a struct type without one, whose fields are all of one-word types."""
    parts = [f'{name.capitalize()} {go} "json:\\"{name}\\""' for name, go in fields.items()]
    return "struct { " + "; ".join(parts) + " }"


def fold(name: str) -> str:
    """Fold a field name as Go does: ASCII letters, and the two characters beyond that fold to one."""
    out = "".join(_FOLDED.get(char, char) for char in name) if not name.isascii() else name
    return "".join(char.upper() if char.isascii() else char for char in out)


def check_numbers(decoder: Decoder, node: Node) -> None:
    """Remember an error for the first number that is too large for float64."""
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
    """Return a Python value: numbers as float, of repeated keys the last. Raises AbortError when too deep."""
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
    """Decode standard padded base64 with line breaks. Raises ValueError with Go's text."""
    groups = text.replace("\n", "").replace("\r", "")
    try:
        if len(groups) % 4 == 0:  # binascii takes a lone "="
            return binascii.a2b_base64(groups, strict_mode=True)
    except ValueError:
        pass
    raise ValueError(f"illegal base64 data at input byte {_illegal_byte(text.encode())}")


def _illegal_byte(data: bytes) -> int:
    """Find the byte at which Go's decoder gives up: it reads groups of four, line breaks aside."""
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
    """Return where the last group of four begins that has only valid bytes before it."""
    odd = _NOT_BASE64.search(data)
    at = odd.start() if odd else len(data)
    over = (at - data.count(b"\n", 0, at) - data.count(b"\r", 0, at)) % 4
    while over:
        at -= 1
        over -= data[at] not in b"\r\n"
    return at
