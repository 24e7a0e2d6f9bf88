"""How long a model stays: a resident of the pool, its timer, and who must make room."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from puna.backend import LoadedModel
from puna.runtime.admission import Gate
from puna.runtime.requirements import LoadedEntry, Use, Wanted

FOREVER_NS = 2**63 - 1
"""The longest duration that the API can tell, some 292 years."""

CALLS_AT_ONCE = 16
"""How many requests without a sequence a model serves at once. A backend takes them in turns, and evaluates texts of
several together; more of them than that count as waiting."""


def expiry_ns(now_ns: int, seconds: float) -> int:
    """Return when a model goes that is idle since `now_ns`; infinite and absurd keep-alives count as 292 years."""
    return now_ns + min(FOREVER_NS, int(min(seconds, FOREVER_NS / 1e9) * 1e9))


@dataclass(eq=False, slots=True, kw_only=True)
class Resident:
    """A loaded model, those who hold it, and the timer that ends its stay once nobody does."""

    want: Wanted
    backend: str
    model: LoadedModel
    pid: int
    gate: Gate
    keep_alive: float
    """Seconds to stay when idle; 0: not at all; infinity: for good."""
    holders: int = 0
    leaving: bool = False
    """Whether it goes as soon as it is idle, and nobody new may hold it."""
    sequences: int = 0
    """Those of its holders that run a sequence, or wait for a place to run one."""
    calls: int = 0
    """Calls that embed, rank or tokenize."""
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the pool has forgotten it. Its memory may be in use for a while longer."""
    _idle_until_ns: int | None = None
    _timer: asyncio.TimerHandle | None = None

    def hold(self, use: Use = Use.NOTHING) -> None:
        """Keep it from going."""
        self.holders += 1
        self.sequences += use is Use.SEQUENCE
        self.calls += use is Use.CALL
        self.stop_timer()

    def release(self, expire: Callable[[], None], use: Use = Use.NOTHING) -> None:
        """Let it go; `expire` is called when nobody has held it for its keep-alive, at once if that is none."""
        self.holders -= 1
        self.sequences -= use is Use.SEQUENCE
        self.calls -= use is Use.CALL
        self.rest(expire)

    def full(self, use: Use) -> bool:
        """Say whether one more of a kind would have to wait."""
        if use is Use.SEQUENCE:
            return self.sequences >= self.gate.places
        return use is Use.CALL and self.calls >= CALLS_AT_ONCE

    @property
    def waiting(self) -> int:
        """How many holders wait: for a place, or for others' texts."""
        return max(self.sequences - self.gate.places, 0) + max(self.calls - CALLS_AT_ONCE, 0)

    def rest(self, expire: Callable[[], None]) -> None:
        """Start the timer if nobody holds it."""
        self.stop_timer()
        if self.holders:
            return
        if self.leaving or self.keep_alive <= 0:
            expire()
            return
        self._idle_until_ns = expiry_ns(time.time_ns(), self.keep_alive)
        if math.isfinite(self.keep_alive):
            self._timer = asyncio.get_running_loop().call_later(self.keep_alive, expire)

    def stop_timer(self) -> None:
        """Forget the expiry, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def entry(self, now_ns: int) -> LoadedEntry:
        """Describe it for ps. One that has never been idle expires a keep-alive from now."""
        facts = self.model.facts
        return LoadedEntry(
            name=self.want.name,
            digest=self.want.digest,
            details=self.want.details,
            backend=self.backend,
            size_bytes=facts.size_bytes or self.want.file_bytes,
            vram_bytes=facts.vram_bytes,
            context_length=facts.context_length,
            expires_at_ns=self._idle_until_ns or expiry_ns(now_ns, self.keep_alive),
            active=self.holders - self.gate.queued,
            queued=self.gate.queued,
            pid=self.pid,
        )


def victim(residents: Iterable[Resident]) -> Resident:
    """Choose who makes room: an idle one if there is any, of the shortest keep-alive. ValueError: nobody is there."""
    return min(residents, key=lambda each: (each.holders > 0, each.keep_alive, each.want.key))
