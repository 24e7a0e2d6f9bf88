"""What downloads and uploads have in common: a task behind it, stages, and listeners that are told how far it is."""

import abc
import asyncio
from collections.abc import AsyncGenerator

from puna.models.registry.limits import Limits


class Transfer(abc.ABC):
    """A blob on its way."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._task: asyncio.Task[None] | None = None
        self._prepared = asyncio.Event()
        self._arrived = asyncio.Event()
        self.total = 0
        """Bytes of the blob, known once it is prepared."""

    @property
    @abc.abstractmethod
    def completed(self) -> int:
        """Bytes that are through."""

    @abc.abstractmethod
    async def _run(self) -> None:
        """Do it: set `_prepared` when the total is known, `_arrived` when all bytes are through, then finish."""

    def start(self) -> None:
        """Begin. Whoever does this stops it."""
        self._task = asyncio.create_task(self._run())

    @property
    def has_failed(self) -> bool:
        """Whether it is over without success."""
        task = self._task
        return task is not None and task.done() and (task.cancelled() or task.exception() is not None)

    async def stop(self) -> None:
        """Cancel what is left of it, and wait until it is over."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # whoever listened has heard of it

    async def progress(self, *, at_least_once: bool) -> AsyncGenerator[tuple[int, int]]:
        """Yield total and completed at every tick until all bytes have arrived. Raises what the transfer fails with.

        `at_least_once` is how uploads report: at the end of each tick, then they look whether it was the last.
        """
        await self._reached(self._prepared, None)
        arrived = False
        while not arrived:
            arrived = await self._reached(self._arrived, self._limits.tick)
            if not arrived or at_least_once:
                yield self.total, self.completed

    async def finished(self) -> None:
        """Wait for the end. Raises what the transfer fails with."""
        assert self._task is not None
        await asyncio.wait({self._task})
        self._task.result()

    async def _reached(self, stage: asyncio.Event, seconds: float | None) -> bool:
        """Wait for a stage, for `seconds` at most; whether it was reached."""
        assert self._task is not None
        if self._task.done():
            self._task.result()
            return True
        waiting = asyncio.ensure_future(stage.wait())
        try:
            await asyncio.wait({waiting, self._task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()
            return True
        return stage.is_set()
