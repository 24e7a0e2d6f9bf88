"""What a request wants of the pool, and what it gets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

from puna.backend import ModelFacts, ModelSpec
from puna.runtime.admitted_model import GatedModel


class Verify(Protocol):
    """Looks at a model's files before they are loaded, and again, `thorough`, when that failed. Blocks."""

    def __call__(self, *, thorough: bool, stopped: Callable[[], bool]) -> None:
        """Raise LoadFailedError or its kin when something is wrong with them."""


def trusting(*, thorough: bool, stopped: Callable[[], bool]) -> None:
    """Find nothing wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model as a request needs it."""

    key: str
    """What identifies it, whatever it is called: the path of its file."""
    name: str
    """Its shortest name; ps shows that of the request that loaded it."""
    spec: ModelSpec
    digest: str = ""
    """Of its manifest."""
    details: Any = None
    """For ps; handed through."""
    format: str = "gguf"
    backend: str = ""
    """The backend that the model asks for; empty: the server decides."""
    backend_options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Options that the request sets, unchecked, by the backend's name. `spec` has those of the chosen one, checked."""
    automatic: frozenset[str] = frozenset()
    """Fields of `spec` that nobody asked for: "context_length", "batch_size"."""
    file_bytes: int = 0
    """Size of the file; ps shows it when the backend does not know its memory."""
    verify: Verify = trusting


class Use(Enum):
    """The use that a request makes of a model, which decides what it may have to wait for."""

    SEQUENCE = "sequence"
    """It runs sequences, one after the other."""
    CALL = "call"
    """It embeds, ranks or tokenizes."""
    NOTHING = "nothing"
    """It has the model loaded, no more."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits: for its model to be loaded, or for a place."""

    position: int
    """How many are in front of it; those that are being served count as one, so 0 says that the wait is over."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Its model is being loaded."""

    fraction: float
    """From 0 to 1."""


Report: TypeAlias = Callable[[Queued | Loading], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A loaded model, lent to one request."""

    model: GatedModel
    key: str
    backend: str
    facts: ModelFacts
    load_ns: int
    """From the request for the lease until it was given: queueing and loading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEntry:
    """A loaded model, as ps lists it."""

    name: str
    digest: str
    details: Any
    backend: str
    size_bytes: int
    vram_bytes: int
    context_length: int
    expires_at_ns: int
    """Nanoseconds since 1970; a model that stays for good expires some 292 years ahead."""
    active: int
    """Requests that hold it and do not wait for a place."""
    queued: int
    """Requests that wait for a place."""
    pid: int
    """Process id of its host; 0 if it has none."""
