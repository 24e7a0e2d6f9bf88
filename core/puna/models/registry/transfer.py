"""The common part of downloads and uploads: a task, its stages, and requests that watch its progress.

A transfer passes three stages: it is prepared when its total is known, it has arrived when all bytes are transferred,
and it is over when its task has ended. Each request that shares the transfer reads the counters at its own ticks, so a
slow client delays neither the transfer nor other clients.
"""

import abc
import asyncio
from collections.abc import AsyncGenerator

from puna.models.registry.limits import Limits


class Transfer(abc.ABC):
    """The transfer of one blob, in either direction."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._task: asyncio.Task[None] | None = None
        self._prepared = asyncio.Event()
        self._arrived = asyncio.Event()
        self.total = 0
        """Bytes of the blob, known once the transfer is prepared."""

    @property
    @abc.abstractmethod
    def completed(self) -> int:
        """Bytes that were transferred."""

    @abc.abstractmethod
    async def _run(self) -> None:
        """Transfer the blob. Set `_prepared` when the total is known and `_arrived` at the last byte."""

    def start(self) -> None:
        """Start the task. The caller stops it."""
        self._task = asyncio.create_task(self._run())

    @property
    def has_failed(self) -> bool:
        """Whether the transfer has ended without success."""
        task = self._task
        return task is not None and task.done() and (task.cancelled() or task.exception() is not None)

    async def stop(self) -> None:
        """Cancel the task if it is running, and wait until it has ended."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # marks the error as retrieved; the requests have seen it

    async def progress(self, *, at_least_once: bool) -> AsyncGenerator[tuple[int, int]]:
        """Yield total and completed bytes at each tick until all bytes have arrived. Raises the error of the transfer.

        With `at_least_once` the tick at which all bytes have arrived is reported too, as Ollama does for uploads.
        """
        await self._reached(self._prepared, None)
        arrived = False
        while not arrived:
            # Each request has its own ticks, so a slow client delays neither the transfer nor other clients.
            arrived = await self._reached(self._arrived, self._limits.tick)
            if not arrived or at_least_once:
                yield self.total, self.completed

    async def finished(self) -> None:
        """Wait until the transfer has ended. Raises its error."""
        assert self._task is not None
        await asyncio.wait({self._task})
        self._task.result()

    async def _reached(self, stage: asyncio.Event, seconds: float | None) -> bool:
        """Wait for a stage for at most `seconds`. Return whether it was reached."""
        assert self._task is not None
        if self._task.done():
            self._task.result()
            return True
        # The task is awaited too: a transfer that fails before the stage would otherwise be waited for forever.
        waiting = asyncio.ensure_future(stage.wait())
        try:
            await asyncio.wait({waiting, self._task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()
            return True
        return stage.is_set()
