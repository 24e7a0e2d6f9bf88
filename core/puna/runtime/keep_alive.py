"""How long a model stays loaded: the state that the pool keeps for it, its expiry timer, and the eviction candidate.

Theory. A PooledModel counts its leases. Acquiring a lease stops the expiry timer; releasing the last one starts it with
the model's keep-alive. When the timer fires, the pool removes the model. A model that is marked `evicting` accepts no
further lease (the pool checks this) and expires at once when its last lease ends, whatever its keep-alive is. A pinned
model has no timer and is no eviction candidate; it goes when a request unloads it, when a request needs it loaded in
another way, and with its host.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from puna.backend import LoadedModel, ModelFacts
from puna.runtime import model_folders
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.requirements import LeaseKind, LoadedEntry, ModelRequirements, ReplicaEntry

LONGEST_NS = 2**63 - 1
"""The longest duration that the API can express, some 292 years."""

MAX_CALLS = 16
"""Number of calls without a sequence that a model serves at once. A backend serves them fairly and evaluates texts of
several together; further calls count as waiting."""


def expires_at_ns(now_ns: int, seconds: float) -> int:
    """Return when a model expires that is idle since `now_ns`, in nanoseconds since 1970.

    An infinite keep-alive, or one beyond the API's range, counts as 292 years.
    """
    # The inner bound keeps infinity out of int(), the outer one corrects the rounding of the float.
    return now_ns + min(LONGEST_NS, int(min(seconds, LONGEST_NS / 1e9) * 1e9))


@dataclass(eq=False, slots=True, kw_only=True)
class PooledModel:
    """A loaded model of the pool with its leases and its expiry timer."""

    requirements: ModelRequirements
    """The requirements of the request that loaded it."""
    backend: str
    model: LoadedModel
    pid: int
    """Process id of its host; 0 if it has none here."""
    node: str = ""
    """Address of the node on which its host runs; empty: this machine."""
    process_id: int = 0
    """Process id of its host on the host's machine."""
    loaded_at_ns: int = field(default_factory=time.time_ns)
    limiter: ConcurrencyLimiter
    takes_memory: bool = True
    """Whether it takes memory of this machine. Others are not counted and not evicted for it."""
    keep_alive: float
    """Seconds to stay loaded when idle; 0: expire at once; infinity: never expire."""
    names: set[str] = field(default_factory=set)
    """The shortest names under which requests have asked for it. Names that share a file share the loaded model."""
    pins: Callable[[Iterable[str]], bool] = lambda _: False
    """Returns whether the configuration pins a model of these names. A reload may change its answer."""
    pinned_by_request: bool = False
    """Whether a request pins it. The pin ends with the model."""
    unloading: bool = False
    """Whether a request has unloaded it, which ends also a pinned model."""
    folder: str = ""
    """The folder of its files, which goes with it; empty if it has none."""
    lease_count: int = 0
    evicting: bool = False
    """Whether the model expires as soon as it is idle and may get no further lease."""
    removal_cause: str = ""
    """Why it is evicting, as in events.ModelRemoved; empty if it is not, or has expired."""
    evicted_for: str = ""
    """Name of the model for which it makes room; empty if it is evicting for another cause."""
    sequences: int = 0
    """Leases that run a sequence or wait for a slot to run one."""
    calls: int = 0
    """Leases that embed, rank or tokenize."""
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the pool has removed it. Its memory may stay in use for a while longer."""
    timer_seconds: float = math.nan
    """`idle_seconds` when the expiry timer was last started; NaN: never."""
    _expires_at_ns: int | None = None
    _timer: asyncio.TimerHandle | None = None

    @property
    def pinned(self) -> bool:
        """Whether it stays: its keep-alive does not end, and it is not evicted for other models."""
        return not self.unloading and (self.pinned_by_request or self.pins(self.names))

    @property
    def idle_seconds(self) -> float:
        """Seconds to stay loaded when idle."""
        return math.inf if self.pinned else self.keep_alive

    def acquire(self, kind: LeaseKind = LeaseKind.LOAD_ONLY) -> None:
        """Count a lease and stop the expiry timer."""
        self.lease_count += 1
        self.sequences += kind is LeaseKind.SEQUENCE
        self.calls += kind is LeaseKind.CALL
        self.stop_timer()

    def release(self, expire: Callable[[], None], kind: LeaseKind = LeaseKind.LOAD_ONLY) -> None:
        """End a lease. After the last one, `expire` is called when the keep-alive is over; at once if that is 0."""
        self.lease_count -= 1
        self.sequences -= kind is LeaseKind.SEQUENCE
        self.calls -= kind is LeaseKind.CALL
        self.start_timer_if_idle(expire)

    def is_full(self, kind: LeaseKind) -> bool:
        """Return whether one more lease of this kind would have to wait."""
        if kind is LeaseKind.SEQUENCE:
            return self.sequences >= self.limiter.slots
        return kind is LeaseKind.CALL and self.calls >= MAX_CALLS

    @property
    def waiting(self) -> int:
        """Number of leases that wait for a slot or for the calls of others."""
        return max(self.sequences - self.limiter.slots, 0) + max(self.calls - MAX_CALLS, 0)

    def start_timer_if_idle(self, expire: Callable[[], None]) -> None:
        """Start the expiry timer anew if there is no lease; call `expire` at once if the model need not stay."""
        # The new keep-alive of a request must replace a timer that runs with the old one.
        self.stop_timer()
        if self.lease_count:
            return
        # `expire` is called in place and not by a timer, so that a load that waits for the memory can go on at once.
        seconds = self.idle_seconds
        if self.evicting or seconds <= 0:
            expire()
            return
        self.timer_seconds = seconds
        self._expires_at_ns = expires_at_ns(time.time_ns(), seconds)
        # The event loop's timers do not take infinity. Without one the model stays until it is evicted.
        if math.isfinite(seconds):
            self._timer = asyncio.get_running_loop().call_later(seconds, expire)

    async def aclose(self) -> None:
        """Free the model, and remove the folder of its files once no host reads it any more."""
        try:
            await self.model.aclose()
        finally:
            if self.folder:
                await asyncio.to_thread(model_folders.remove, self.folder)

    def stop_timer(self) -> None:
        """Cancel the expiry timer if it runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def entry(self, now_ns: int) -> LoadedEntry:
        """Return its row in the list of loaded models. A model that was never idle expires a keep-alive from now."""
        facts = self.model.facts
        return LoadedEntry(
            name=self.requirements.name,
            digest=self.requirements.digest,
            details=self.requirements.details,
            backend=self.backend,
            size_bytes=facts.size_bytes or self.requirements.file_bytes,
            vram_bytes=facts.vram_bytes,
            context_length=facts.context_length,
            expires_at_ns=self._expires_at_ns or expires_at_ns(now_ns, self.idle_seconds),
            # A lease that waits for a slot is not active yet.
            active=self.lease_count - self.limiter.queued,
            queued=self.limiter.queued,
            slots=self.limiter.slots,
            pid=self.pid,
            kv_cache_tokens=facts.kv_cache_tokens,
            kv_cache_type=facts.kv_cache_type,
            kv_cache_usage=self.model.kv_cache_usage(),
            accepts=not self.evicting,
            pinned=self.pinned,
            replicas=(self._replica(facts),),
            routing="prefix",
        )

    def _replica(self, facts: ModelFacts) -> ReplicaEntry:
        return ReplicaEntry(
            number=1,
            node=self.node,
            process_id=self.process_id or self.pid,
            slots=self.limiter.slots,
            active=self.lease_count - self.limiter.queued,
            queued=self.limiter.queued,
            size_bytes=facts.size_bytes or self.requirements.file_bytes,
            vram_bytes=facts.vram_bytes,
            kv_cache_tokens=facts.kv_cache_tokens,
            kv_cache_type=facts.kv_cache_type,
            kv_cache_usage=self.model.kv_cache_usage(),
            loaded_at_ns=self.loaded_at_ns,
        )


def eviction_candidate(models: Iterable[PooledModel]) -> PooledModel:
    """Return the model to evict first: an idle one if there is any, of the shortest keep-alive.

    Raises ValueError if there is no model.
    """
    # The order is Ollama's. The key breaks ties, so that the choice does not depend on the order of loading.
    return min(models, key=lambda each: (each.lease_count > 0, each.keep_alive, each.requirements.key))
