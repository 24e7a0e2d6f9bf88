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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from puna.backend import KvCacheUsage, LoadedModel
from puna.replica_count import ROUTINGS
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.admitted_model import AdmittedModel, Renew
from puna.runtime.loads_under_way import LoadUnderWay
from puna.runtime.replica_scaling import ReplicaScaler
from puna.runtime.replicas import Replica, Replicas
from puna.runtime.requirements import LeaseKind, LoadedEntry, ModelRequirements, ReplicaEntry
from puna.runtime.routed_model import RoutedModel

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
    first: Replica
    """The host that loaded it first."""
    takes_memory: bool = True
    """Whether it takes memory of this machine. Others are not counted and not evicted for it."""
    shares_host: bool = False
    """True if its host runs all models of its backend. A second replica would run there too, so the model has none."""
    weights: str = ""
    """The weights that it shares with the models of equal ones, in one host; empty if it shares none."""
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
    replicas: Replicas | None = None
    """All of its hosts; None if its settings allow one alone."""
    scaler: ReplicaScaler | None = None
    """Starts and ends hosts."""
    routing: Callable[[], str] = lambda: ROUTINGS[0]
    """Returns the policy that chooses among replicas. A reload may change its answer."""
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the pool has removed it. Its memory may stay in use for a while longer."""
    timer_seconds: float = math.nan
    """`idle_seconds` when the expiry timer was last started; NaN: never."""
    _expires_at_ns: int | None = None
    _timer: asyncio.TimerHandle | None = None

    @property
    def replica(self) -> Replica:
        """A host that has it loaded: the oldest one."""
        return self.first if self.replicas is None else self.replicas.members[0]

    @property
    def model(self) -> LoadedModel:
        """The model, on the oldest host."""
        return self.replica.model

    @property
    def limiter(self) -> ConcurrencyLimiter:
        """The limiter of the oldest host's slots."""
        return self.replica.limiter

    @property
    def slots(self) -> int:
        """Number of sequences that it runs at once."""
        return self.first.limiter.slots if self.replicas is None else self.replicas.slots

    @property
    def queued(self) -> int:
        """Number of sequences that wait for a slot."""
        return self.first.limiter.queued if self.replicas is None else self.replicas.queued

    @property
    def size_bytes(self) -> int:
        """The memory of all hosts, as far as the backend tells."""
        return sum(each.model.facts.size_bytes + each.inherited_bytes for each in self._hosts)

    @property
    def vram_bytes(self) -> int:
        """The memory of all hosts on GPUs, as far as the backend tells."""
        return sum(each.vram_bytes for each in self._hosts)

    @property
    def _hosts(self) -> Sequence[Replica]:
        return (self.first,) if self.replicas is None else self.replicas.members

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
            return self.sequences >= self.slots
        return kind is LeaseKind.CALL and self.calls >= MAX_CALLS

    @property
    def waiting(self) -> int:
        """Number of leases that wait for a slot or for the calls of others."""
        return max(self.sequences - self.slots, 0) + max(self.calls - MAX_CALLS, 0)

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

    def admit(self, on_position: Callable[[int], None], position: int, renew: Renew) -> AdmittedModel:
        """Return the model as one request sees it; see AdmittedModel."""
        if self.replicas is not None:
            return RoutedModel(self.replicas, on_position, position, renew)
        return AdmittedModel(self.first.model, self.first.limiter, on_position, position, renew)

    async def aclose(self) -> None:
        """Free the model on all of its hosts."""
        if self.replicas is None:
            await self.first.aclose()
        else:
            if self.scaler is not None:
                await self.scaler.aclose()
            await self.replicas.aclose()

    def stop_timer(self) -> None:
        """Cancel the expiry timer if it runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def entry(self, now_ns: int) -> LoadedEntry:
        """Return its row in the list of loaded models. A model that was never idle expires a keep-alive from now."""
        facts = self.model.facts
        # A lease that waits for a slot is not active yet.
        active = self.lease_count - self.queued
        if self.replicas is None:
            replicas: tuple[ReplicaEntry, ...] = (self.first.entry(active),)
        else:
            replicas = tuple(each.entry() for each in self.replicas.members)
        usages = [each.kv_cache_usage for each in replicas if each.kv_cache_usage is not None]
        return LoadedEntry(
            name=self.requirements.name,
            digest=self.requirements.digest,
            details=self.requirements.details,
            backend=self.backend,
            size_bytes=sum(each.size_bytes for each in replicas),
            vram_bytes=sum(each.vram_bytes for each in replicas),
            context_length=facts.context_length,
            expires_at_ns=self._expires_at_ns or expires_at_ns(now_ns, self.idle_seconds),
            active=active,
            queued=self.queued,
            slots=self.slots,
            pid=self.replica.pid,
            kv_cache_tokens=sum(each.kv_cache_tokens for each in replicas),
            kv_cache_type=facts.kv_cache_type,
            kv_cache_usage=sum_of(usages) if usages else None,
            accepts=not self.evicting,
            pinned=self.pinned,
            replicas=replicas,
            starting_replicas=self.replicas.starting if self.replicas is not None else 0,
            routing=self.replicas.routing if self.replicas is not None else self.routing(),
        )


def sum_of(usages: Sequence[KvCacheUsage]) -> KvCacheUsage:
    """Return the use of several KV caches together."""
    return KvCacheUsage(sum(each.active_tokens for each in usages), sum(each.cached_tokens for each in usages))


def eviction_candidate(models: Iterable[PooledModel]) -> PooledModel:
    """Return the model to evict first: an idle one if there is any, of the shortest keep-alive.

    Models that share their weights are evicted one after the other, since all must go before the weights do.

    Raises ValueError if there is no model.
    """
    groups: dict[str, list[PooledModel]] = {}
    for each in models:
        groups.setdefault(_group(each), []).append(each)

    # The order is Ollama's. The key breaks ties, so that the choice does not depend on the order of loading.
    def order(group: list[PooledModel]) -> tuple[bool, float, str]:
        busy, longest = any(each.lease_count for each in group), max(each.keep_alive for each in group)
        return busy, longest, _group(group[0])

    group = min(groups.values(), key=order)
    return min(group, key=lambda each: (each.lease_count > 0, each.keep_alive, each.requirements.key))


def _group(model: PooledModel | LoadUnderWay) -> str:
    """Return what models have in common that share their weights, and no others."""
    return model.weights or model.requirements.key


def places(models: Iterable[PooledModel | LoadUnderWay]) -> int:
    """Return how many models count towards OLLAMA_MAX_LOADED_MODELS: those that share their weights count as one."""
    return len(set(map(_group, models)))
