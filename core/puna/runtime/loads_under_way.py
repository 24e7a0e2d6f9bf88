"""The loads that are under way, and the memory that they will take.

Theory. A load takes the free memory that was measured when it began, and leaves what is free after it. The next one
finds no more than that, however much of its memory the first has taken by then: the smaller of what is measured and of
what the others leave. So nothing is counted twice and nothing is promised twice.

A load that makes no progress, or whose files are on their way to another machine, counts no more after a while. It may
never end, and no other model may wait for it.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from puna.runtime.requirements import Loading, ModelRequirements, Queued

CHECK_SECONDS: Final = 0.25
"""Pause between two looks whether a load still makes progress."""


@dataclass(eq=False, slots=True, kw_only=True)
class LoadUnderWay:
    """A model that is being loaded."""

    requirements: ModelRequirements
    weights: str
    """See PooledModel.weights."""
    takes_memory: bool
    left_bytes: float
    """Free memory that it leaves; infinity: unknown."""
    progressed_at: float = field(default_factory=time.monotonic)
    paused: bool = False
    """True while it waits to begin anew."""

    def note(self, progress: Queued | Loading) -> None:
        """Take notice of progress. A transfer of files is none; it may last for minutes."""
        if not (isinstance(progress, Loading) and progress.transfers):
            self.progressed_at = time.monotonic()


class LoadsUnderWay:
    """The loads of all models and of their further replicas."""

    def __init__(self, silent_seconds: float) -> None:
        """`silent_seconds` is how long a load without progress counts."""
        self._silent_seconds = silent_seconds
        self._loads: list[LoadUnderWay] = []
        self._changed = asyncio.Event()

    def all(self) -> list[LoadUnderWay]:
        """Return the loads that make progress."""
        oldest = time.monotonic() - self._silent_seconds
        return [each for each in self._loads if not each.paused and each.progressed_at >= oldest]

    def in_memory(self) -> list[LoadUnderWay]:
        """Return those of them that take memory of the machines on which hosts run."""
        return [each for each in self.all() if each.takes_memory]

    def free(self, measured: int, without: LoadUnderWay | None = None) -> int:
        """Return how much of the measured free memory the loads leave, all but `without`; 0: unknown."""
        left = [each.left_bytes for each in self.in_memory() if each is not without]
        # At least 1, because 0 means that the system does not say.
        return measured and max(int(min([measured, *left])), 1)

    @contextmanager
    def begun(
        self, requirements: ModelRequirements, *, weights: str, takes_memory: bool, bytes_taken: int, measured: int
    ) -> Generator[LoadUnderWay]:
        """Count a load until the block ends. `measured` is the free memory now; 0: unknown."""
        left = self.free(measured) - bytes_taken if measured else math.inf
        load = LoadUnderWay(requirements=requirements, weights=weights, takes_memory=takes_memory, left_bytes=left)
        self._loads.append(load)
        try:
            yield load
        finally:
            self._loads.remove(load)
            self._notify()

    @contextmanager
    def paused(self, load: LoadUnderWay) -> Generator[None]:
        """Do not count a load until the block ends, in which it waits to begin anew."""
        load.paused = True
        self._notify()
        try:
            yield
        finally:
            load.paused, load.progressed_at = False, time.monotonic()

    async def wait_for_change(self) -> None:
        """Wait until a load has ended, or may count no more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), CHECK_SECONDS)

    def _notify(self) -> None:
        # Waiters that come later must not see this change.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def _at_once() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True)
class LoadTurn:
    """The load turn, as the launch of a model sees it. By default no other load is let in or waited for."""

    placed: Callable[[], None] = lambda: None
    """To be called once the host has a place: others may be loaded beside it."""
    alone: Callable[[], Awaitable[None]] = _at_once
    """To be awaited before the model is loaded anew: no others are loaded beside it any more."""
    free: Callable[[int], int] = lambda measured: measured
    """Returns how much of the measured free memory the other loads leave."""


NO_TURN: Final = LoadTurn()
