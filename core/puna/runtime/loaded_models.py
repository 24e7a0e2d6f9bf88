"""The models that are loaded now: looked up, evicted, removed, and freed in the background.

Theory. A model passes through four states. *Loaded*: it can be leased. *Evicting*: it gets no further lease, and is
removed when its last lease ends. *Removed*: it is no longer in the table, so the next request loads it anew, while a
background task frees its memory (`_closing`). *Stuck*: that task has taken longer than CLOSING_SECONDS, and no load
waits for it any more, since it may never end.

A host may die at any time, so a model can be removed while requests still hold leases; `remove` therefore ignores a
model that is not in the table. `next_change` wakes whenever a model becomes idle or is removed; the event is
replaced each time, so that a waiter sees only changes that come after it asked.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable

from puna import events
from puna.runtime.keep_alive import PooledModel, eviction_candidate, places
from puna.runtime.requirements import LoadedEntry
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

CLOSING_SECONDS = 3.0
"""How long a load waits for the memory of a model that is being freed."""
EXIT_SECONDS = 20.0
"""How long models may take to be freed when the server ends. Host processes are killed long before."""


class LoadedModels:
    """The table of loaded models, by their keys."""

    def __init__(self) -> None:
        self._models: dict[str, PooledModel] = {}
        self._closing: set[asyncio.Task[None]] = set()
        """Tasks that free removed models."""
        self._stuck: set[asyncio.Task[None]] = set()
        """Those of them that no load waits for any more."""
        self._changed = asyncio.Event()

    def get(self, key: str) -> PooledModel | None:
        """Return the model of a key, which may be evicting; None if there is none."""
        return self._models.get(key)

    def all(self) -> list[PooledModel]:
        """Return every model, in the order in which they were loaded."""
        return list(self._models.values())

    def in_memory(self) -> list[PooledModel]:
        """Return the models that take memory of this machine, in the order in which they were loaded."""
        return [each for each in self._models.values() if each.takes_memory]

    def evictable(self) -> list[PooledModel]:
        """Return the models in memory that are not pinned."""
        return [each for each in self.in_memory() if not each.pinned]

    def idle(self) -> list[PooledModel]:
        """Return the evictable models without a lease."""
        return [each for each in self.evictable() if not each.lease_count]

    def entries(self) -> list[LoadedEntry]:
        """Return a row for each model. The model that expires last comes first."""
        now = time.time_ns()
        return sorted((each.entry(now) for each in self._models.values()), key=lambda entry: -entry.expires_at_ns)

    @property
    def waiting(self) -> int:
        """Number of leases that wait for a slot or for the calls of others, over all models."""
        return sum(each.waiting for each in self._models.values())

    def add(self, pooled: PooledModel) -> None:
        """Add a model that has been loaded."""
        self._models[pooled.requirements.key] = pooled

    def evict(self, pooled: PooledModel, room_for: str = "") -> None:
        """Allow no further lease of a model, and remove it when its last lease ends.

        `room_for` names the model that needs the room; empty: its files or options have changed.
        """
        # A model may be chosen again while it waits for its last lease to end.
        if not pooled.removal_cause:
            pooled.removal_cause, pooled.evicted_for = "evicted" if room_for else "unloaded", room_for
        pooled.evicting = True
        self.expire_when_idle(pooled)

    def evict_excess(self, keep: PooledModel, most: int) -> None:
        """Evict models until at most `most` are left that are not evicting; `keep` and pinned models always stay.

        There are too many when a slow load lost its turn and others were loaded beside it.
        """
        others = [each for each in self.in_memory() if each is not keep and not each.evicting]
        others = [each for each in others if not (each.weights and each.weights == keep.weights)]
        candidates = [each for each in others if not each.pinned]
        while candidates and places(others) >= most:
            candidate = eviction_candidate(candidates)
            others.remove(candidate)
            candidates.remove(candidate)
            self.evict(candidate, keep.requirements.name)

    def expire_when_idle(self, pooled: PooledModel) -> None:
        """Start a model's expiry timer if it is idle."""
        pooled.start_timer_if_idle(lambda: self.remove(pooled))

    def adopt_settings(self) -> None:
        """Stop the expiry timers of idle models that a reload has pinned, and start those of models that it freed."""
        for each in self.all():
            if each.timer_seconds != each.idle_seconds:
                self.expire_when_idle(each)

    def remove(self, pooled: PooledModel, cause: str = "") -> None:
        """Remove a model and begin to free it. Does nothing if the model was removed before.

        `cause` is that of events.ModelRemoved; empty: the end of its keep-alive, or an eviction.
        """
        # Identity, not the key: the model may have been loaded anew under the same key.
        if self._models.get(pooled.requirements.key) is not pooled:
            return
        del self._models[pooled.requirements.key]
        cause = cause or pooled.removal_cause or ("expired" if pooled.keep_alive else "unloaded")
        evicted_for = pooled.evicted_for if cause == "evicted" else ""
        events.publish(events.ModelRemoved(model=pooled.requirements.name, cause=cause, evicted_for=evicted_for))
        self._pass_on_weights(pooled.weights)
        pooled.evicting = True
        pooled.stop_timer()
        # Loads wait for this event and then for the memory. Freeing may take seconds and must not delay the request
        # that ended.
        pooled.removed.set()
        closing = asyncio.create_task(pooled.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closed)
        self.notify()

    def _pass_on_weights(self, weights: str) -> None:
        """Let a model count weights that it shares, unless the one is left that has loaded them."""
        left = [each for each in self._models.values() if weights and each.weights == weights]
        if left and all(each.model.facts.shared_bytes and not each.first.inherits for each in left):
            left[0].first.inherits = True

    def notify(self) -> None:
        """Wake the tasks that wait for a change."""
        # Setting and clearing one event would wake waiters that asked after the change.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def next_change(self) -> Awaitable[object]:
        """Return what to await until a model becomes idle or is removed, counted from this call on."""
        return self._changed.wait()

    async def wait_for_memory(self) -> bool:
        """Wait until removed models are freed; return whether there was anything to wait for.

        A model that takes longer than CLOSING_SECONDS counts as stuck and is not waited for again.
        """
        # A process that waits for a broken disk never ends. Without this set every later load would wait for it again.
        freed = {task for task in self._closing if task not in self._stuck}
        if not freed:
            return False
        _, pending = await asyncio.wait(freed, timeout=CLOSING_SECONDS)
        self._stuck |= pending
        return True

    async def close(self) -> None:
        """Remove every model and wait until all are freed, but no longer than EXIT_SECONDS."""
        for pooled in self.all():
            self.remove(pooled, "ended")
        if self._closing:
            await asyncio.wait(self._closing, timeout=EXIT_SECONDS)

    def _closed(self, closing: asyncio.Task[None]) -> None:
        self._closing.discard(closing)
        self._stuck.discard(closing)
        if not closing.cancelled() and (error := closing.exception()) is not None:
            log.error("a model could not be freed: %s", summarize(error))
