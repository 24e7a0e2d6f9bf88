"""Go's JSON decoder over typed tables: what goes where, and what is said when it does not fit.

A value of the wrong type does not end decoding: Go remembers the first such error and goes on. An error that a type's
own decoder raises does end it, and so wins over those remembered. `Decoder` keeps that account for one call of
Unmarshal; a type's own decoder that calls it again begins a new one, whose field path is put behind the path outside.
"""

from dataclasses import dataclass, field, replace

from puna.go.json_scanner import BodyError, Document, Node


@dataclass(frozen=True, slots=True)
class TypeMismatch:
    """A value that does not fit the Go type it is meant for."""

    value: str
    """What came: "string", "number 1.5", ..."""
    go: str
    """Name of the Go type."""
    struct: str = ""
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        inside = self.struct or self.path
        target = f"Go struct field {self.struct}.{'.'.join(self.path)}" if inside else "Go value"
        return f"json: cannot unmarshal {self.value} into {target} of type {self.go}"


class AbortError(Exception):
    """Decoding cannot go on."""

    def __init__(self, cause: TypeMismatch | str) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(slots=True)
class Decoder:
    """The account of one call of Unmarshal."""

    document: Document
    saved: TypeMismatch | str | None = None
    struct: str = ""
    """Name of the struct whose field is being decoded; it stays when decoding aborts."""
    path: list[str] = field(default_factory=list)

    def mismatch(self, value: str, go: str) -> None:
        """Remember an error, if it is the first."""
        self.save(TypeMismatch(value, go))

    def save(self, cause: TypeMismatch | str) -> None:
        """Remember an error, if it is the first."""
        if self.saved is None:
            self.saved = self.placed(cause)

    def placed(self, cause: TypeMismatch | str) -> TypeMismatch | str:
        """Say in which field an error is."""
        if isinstance(cause, TypeMismatch) and (self.struct or self.path):
            return replace(cause, struct=self.struct, path=(*self.path, *cause.path))
        return cause


class Type:
    """A Go type: its name, its zero value, and how a JSON value becomes one of it."""

    go = ""
    zero: object = None

    def decode(self, decoder: Decoder, node: Node, old: object) -> object:
        """Decode a value over an older one. Raises AbortError."""
        raise NotImplementedError


def unmarshal(document: Document, node: Node, kind: Type) -> object:
    """Decode a value for itself. Raises AbortError."""
    decoder = Decoder(document)
    try:
        value = kind.decode(decoder, node, kind.zero)
    except AbortError as error:
        raise AbortError(decoder.placed(error.cause)) from None
    if decoder.saved is not None:
        raise AbortError(decoder.saved)
    return value


def decode(document: Document, kind: Type) -> object:
    """Decode a whole document. Raises BodyError with Go's text."""
    try:
        return unmarshal(document, document.root, kind)
    except AbortError as error:
        raise BodyError(str(error)) from None
