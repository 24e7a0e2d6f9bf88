"""Go's JSON decoder over types declared as data.

Three rules of encoding/json decide which error a client reads. A value of the wrong type does not end decoding: Go
saves the first such error, goes on, and returns it at the end. An error of a type's own UnmarshalJSON ends decoding at
once, and so wins over a saved error. An error names the path of struct fields to its value. `Decoder` holds the
state of one call of json.Unmarshal. An UnmarshalJSON that calls json.Unmarshal starts a new state; the field path of
its error is appended to the path outside.
"""

from dataclasses import dataclass, field, replace

from puna.go.json_scanner import BodyError, Document, Node


@dataclass(frozen=True, slots=True)
class TypeMismatch:
    """A value of the wrong type, Go's UnmarshalTypeError."""

    value: str
    """Description of the JSON value: "string", "number 1.5", ..."""
    go: str
    """Name of the expected Go type."""
    struct: str = ""
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        inside = self.struct or self.path
        target = f"Go struct field {self.struct}.{'.'.join(self.path)}" if inside else "Go value"
        return f"json: cannot unmarshal {self.value} into {target} of type {self.go}"


class AbortError(Exception):
    """Decoding ends at once."""

    def __init__(self, cause: TypeMismatch | str) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(slots=True)
class Decoder:
    """The state of one call of json.Unmarshal."""

    document: Document
    saved: TypeMismatch | str | None = None
    struct: str = ""
    """Name of the struct whose field is being decoded. It stays set when decoding aborts, as in Go."""
    path: list[str] = field(default_factory=list)

    def mismatch(self, value: str, go: str) -> None:
        """Save a TypeMismatch unless an error is saved already."""
        self.save(TypeMismatch(value, go))

    def save(self, cause: TypeMismatch | str) -> None:
        """Save an error unless one is saved already."""
        if self.saved is None:
            self.saved = self.placed(cause)

    def placed(self, cause: TypeMismatch | str) -> TypeMismatch | str:
        """Return an error with the current struct and field path added."""
        if isinstance(cause, TypeMismatch) and (self.struct or self.path):
            return replace(cause, struct=self.struct, path=(*self.path, *cause.path))
        return cause


class Type:
    """A Go type: its name in error texts, its zero value, and its decoding."""

    go = ""
    zero: object = None

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode a value. `old` is the variable's current value, which some types keep or extend. Raises AbortError."""
        raise NotImplementedError


def unmarshal(document: Document, node: Node, kind: Type) -> object:
    """Decode a value with a state of its own, like a call of json.Unmarshal. Raises AbortError."""
    decoder = Decoder(document)
    try:
        value = kind.decode(decoder, node, kind.zero)
    except AbortError as error:
        raise AbortError(decoder.placed(error.cause)) from None
    if decoder.saved is not None:
        raise AbortError(decoder.saved)
    return value


def decode(document: Document, kind: Type) -> object:
    """Decode a document. Raises BodyError with Go's text."""
    try:
        return unmarshal(document, document.root, kind)
    except AbortError as error:
        raise BodyError(str(error)) from None
