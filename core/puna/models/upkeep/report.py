"""The findings and the report of a store check."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The kind of a finding. Faults make a model unusable; the others cost space or need a decision."""

    DAMAGED_BLOB = "damaged blob"
    MISSING_BLOB = "missing blob"
    BROKEN_MANIFEST = "broken manifest"
    BROKEN_MODEL = "broken model"
    """Its files have the right digests and cannot be read."""
    CLASHING_NAMES = "clashing names"
    UNREADABLE = "unreadable"
    ORPHAN = "orphan"
    PARTIAL = "partial download"
    UNFINISHED = "unfinished file"
    STRAY = "stray file"
    NO_BACKEND = "no backend"
    """The model is sound, and the backend that it names cannot be used."""

    @property
    def is_fault(self) -> bool:
        """Whether it is a fault of the store, and no mere leftover."""
        return self not in (Kind.ORPHAN, Kind.PARTIAL, Kind.UNFINISHED, Kind.STRAY, Kind.NO_BACKEND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem."""

    kind: Kind
    path: str
    text: str
    """A sentence about the fault."""
    advice: str = ""
    """The remedy; empty if none is needed."""
    digest: str = ""
    """The blob's digest, if the finding is about a blob."""
    models: tuple[str, ...] = ()
    """The shortest names of the affected models."""
    repaired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a check."""

    models: int
    blobs: int
    bytes_read: int
    faults: int
    """Faults that were not repaired."""
    repaired: int
