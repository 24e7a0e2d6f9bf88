"""The requirements that a request sends to the model pool, and the lease that it gets back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

from puna.backend import KvCacheUsage, ModelFacts, ModelSpec
from puna.runtime.admitted_model import AdmittedModel


class Verify(Protocol):
    """Checks a model's files before they are loaded, and again, with `thorough`, after a load failed. Blocks."""

    def __call__(self, *, thorough: bool, stopped: Callable[[], bool]) -> None:
        """Raise LoadFailedError, or a subclass, if a file is missing or changed; return early once `stopped()`."""


def skip_verification(*, thorough: bool, stopped: Callable[[], bool]) -> None:
    """Accept the files unseen, for models that no store keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequirements:
    """The model that a request needs, and how it must be loaded."""

    key: str
    """Identity of the model, independent of its name: the path of its file, or a digest of what an opaque model is."""
    name: str
    """Its shortest name. The list of loaded models shows the name that the loading request used."""
    spec: ModelSpec
    digest: str = ""
    """Digest of its manifest."""
    # The pool knows nothing of stored models, so the type stays open here.
    details: Any = None
    """Passed through to the list of loaded models."""
    format: str = "gguf"
    backend: str = ""
    """The backend that the model names; empty: the server chooses."""
    backend_options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Backend options of the request, unchecked, by backend name. `spec` has those of the model, and once they are
    checked also the request's for the chosen backend."""
    automatic: frozenset[str] = frozenset()
    """Fields of `spec` that no one set: "context_length", "batch_size". They do not cause a reload."""
    file_bytes: int = 0
    """Size of the model's files, shown when the backend does not know how much memory it uses."""
    adapter_bytes: int = 0
    """Size of its adapters: all that a model needs which shares the weights of a loaded one."""
    alone: bool = False
    """True if its host serves it alone, so that it shares its weights with no other model."""
    verify: Verify = skip_verification


class LeaseKind(Enum):
    """The use of a lease, which decides whether the request may have to wait for a slot or for other calls."""

    SEQUENCE = "sequence"
    """Runs sequences, most often one after the other; each needs a slot of the model."""
    CALL = "call"
    """Embeds, ranks or tokenizes, without a slot."""
    BACKGROUND = "background"
    """Runs a sequence or a call of a batch. It does not count where requests are refused for being too many."""
    LOAD_ONLY = "load_only"
    """Has the model loaded and does nothing with it."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits: for its model to be loaded, or for a slot."""

    position: int
    """Number of requests in front of it. Those being served count as one, so 0 means that the wait is over."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The request's model is being loaded."""

    fraction: float
    """From 0 to 1. It stays 0 while files are transferred."""
    done_bytes: int = 0
    """Bytes of the model's files that the node has fetched or verified."""
    total_bytes: int = 0
    """Bytes that the node has to fetch or to verify; 0: none."""

    @property
    def transfers(self) -> bool:
        """True while files are on their way, before anything is loaded."""
        return self.total_bytes > 0


OnProgress: TypeAlias = Callable[[Queued | Loading], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A loaded model, leased to one request."""

    model: AdmittedModel
    key: str
    backend: str
    facts: ModelFacts
    load_ns: int
    """Nanoseconds from the request for the lease until it was given: queueing and loading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaEntry:
    """A host of a loaded model, in the list of loaded models."""

    number: int
    """Its number among the replicas of the model, counted from 1."""
    node: str
    """Address of the node on which the host runs; empty: this machine."""
    process_id: int
    """Process id of the host on its machine; 0 if it has none."""
    slots: int
    active: int
    """Requests that do not wait for a slot."""
    queued: int
    """Requests that wait for a slot of this replica."""
    size_bytes: int
    vram_bytes: int
    kv_cache_tokens: int
    kv_cache_type: str
    kv_cache_usage: KvCacheUsage | None
    loaded_at_ns: int
    """Nanoseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEntry:
    """A row in the list of loaded models."""

    name: str
    digest: str
    details: Any
    backend: str
    size_bytes: int
    vram_bytes: int
    context_length: int
    expires_at_ns: int
    """Nanoseconds since 1970. A model that never expires has a time some 292 years ahead."""
    active: int
    """Leases that do not wait for a slot."""
    queued: int
    """Leases that wait for a slot."""
    slots: int
    """Sequences that it runs at once."""
    pid: int
    """Process id of its host; 0 if it has none."""
    kv_cache_tokens: int
    """Tokens that fit into its KV cache; 0: unknown, or there is none."""
    kv_cache_type: str
    kv_cache_usage: KvCacheUsage | None
    """How full the KV cache was a few seconds ago; None: unknown."""
    accepts: bool
    """Whether it takes further requests. A model that is being evicted does not."""
    pinned: bool = False
    """Whether the configuration or a request pins it."""
    replicas: tuple[ReplicaEntry, ...] = ()
    """The hosts that have it loaded. The memory, leases, slots and KV cache above are their sums."""
    starting_replicas: int = 0
    """Replicas that have not loaded the model yet."""
    routing: str = ""
    """The policy that chooses the replica for a request."""
