"""Starts replicas of a model while requests wait, and ends those that are idle.

Theory. `puna.runtime.scaling` says what to do; this module measures the demand and does it. One task for each model
asks every CROWDED_SECONDS while something waits or starts, and every CALM_SECONDS while there are more replicas than
the settings ask for, or fewer. Otherwise it sleeps until a request has to wait. A start that fails is tried again after
a pause, which doubles each time. A further replica takes no room from other models.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from puna.backend import BackendError
from puna.errors import PunaError
from puna.replica_count import ReplicaCount
from puna.request_log import without_request
from puna.runtime.replicas import Replica, Replicas
from puna.runtime.scaling import Demand, ScalingLimits, change

log = logging.getLogger(__name__)

CROWDED_SECONDS: Final = 0.25
CALM_SECONDS: Final = 1.0
DEFAULT_SCALING: Final = ScalingLimits()
FIRST_PAUSE: Final = 1.0
"""Seconds between a start that fails and the next one."""


class ReplicaScaler:
    """Gives a model as many replicas as it needs. `aclose` ends the starts that are under way."""

    def __init__(
        self,
        replicas: Replicas,
        count: Callable[[], ReplicaCount],
        start: Callable[[], Awaitable[Replica]],
        *,
        longest_pause: float,
        limits: ScalingLimits = DEFAULT_SCALING,
    ) -> None:
        """`count` returns what the settings allow now; `start` loads the model in one more host.

        `longest_pause` is the most seconds between two starts of which the first has failed. `limits` has the times.
        """
        self._replicas = replicas
        self._count = count
        self._start = start
        self._longest_pause = longest_pause
        self._limits = limits
        self._failures = 0
        self._next_start = 0.0
        """Before this time, by the monotonic clock, nothing is started."""
        self._starts: set[asyncio.Task[None]] = set()
        # The task outlives the request that loads the model, so it must not log under that request's id.
        self._task = asyncio.create_task(self._run(), context=without_request())

    async def aclose(self) -> None:
        """End the task, and the starts that are under way."""
        tasks = {self._task, *self._starts}
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            count = self._count()
            limits = replace(self._limits, least=count.least, most=count.most)
            self._change(change(self._demand(), limits))
            replicas = self._replicas
            replicas.crowded.clear()
            if replicas.queued or replicas.starting:
                await asyncio.sleep(CROWDED_SECONDS)
            else:
                calm = len(replicas.members) == count.least
                with suppress(TimeoutError):
                    await asyncio.wait_for(replicas.crowded.wait(), None if calm else CALM_SECONDS)

    def _demand(self) -> Demand:
        replicas, idlest = self._replicas, self._replicas.idlest()
        return Demand(
            replicas=len(replicas.members),
            starting=replicas.starting,
            slots=replicas.slots,
            taken_slots=sum(min(each.requests, each.slots) for each in replicas.members),
            longest_wait=replicas.longest_wait(),
            longest_idle=time.monotonic() - idlest.idle_since if idlest is not None else 0.0,
        )

    def _change(self, step: int) -> None:
        replicas = self._replicas
        if step > 0 and time.monotonic() >= self._next_start:
            replicas.starting += 1
            task = asyncio.create_task(self._add(), context=without_request())
            self._starts.add(task)
            task.add_done_callback(self._starts.discard)
        elif step < 0 and (idle := replicas.idlest()) is not None:
            log.info("%s: replica %d has nothing to do and ends", replicas.name, idle.number)
            replicas.remove(idle)

    async def _add(self) -> None:
        replicas = self._replicas
        began = time.monotonic()
        try:
            found = await self._start()
        except (PunaError, BackendError, OSError) as error:
            pause = min(FIRST_PAUSE * 2**self._failures, self._longest_pause)
            self._failures = min(self._failures + 1, 30)
            self._next_start = time.monotonic() + pause
            log.warning("%s: a further replica cannot be started, next try in %g s: %s", replicas.name, pause, error)
        else:
            self._failures = 0
            replicas.add(found)
            where = f" on {found.node}" if found.node else ""
            seconds = time.monotonic() - began
            log.info("%s: replica %d has started%s in %.1f s", replicas.name, found.number, where, seconds)
        finally:
            replicas.starting -= 1
