"""What a look at a store finds."""

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What is the matter. Faults cost a model; the others cost space, or wait for somebody."""

    DAMAGED_BLOB = "damaged blob"
    MISSING_BLOB = "missing blob"
    BROKEN_MANIFEST = "broken manifest"
    BROKEN_MODEL = "broken model"
    """Its files are those that they should be, and make no sense."""
    CLASHING_NAMES = "clashing names"
    UNREADABLE = "unreadable"
    ORPHAN = "orphan"
    PARTIAL = "partial download"
    UNFINISHED = "unfinished file"
    STRAY = "stray file"

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong, and not merely left over."""
        return self not in (Kind.ORPHAN, Kind.PARTIAL, Kind.UNFINISHED, Kind.STRAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    path: str
    text: str
    """What is wrong with it."""
    advice: str = ""
    """What to do; empty if nothing need be done."""
    digest: str = ""
    """Of the blob, if it is one."""
    models: tuple[str, ...] = ()
    """The shortest names of the models that it concerns."""
    repaired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a look ended."""

    models: int
    blobs: int
    bytes_read: int
    faults: int
    """Findings that are faults and were not repaired."""
    repaired: int
