"""The requests that wait or are being answered, to be listed and cancelled."""

import asyncio
import itertools
import math
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from puna.errors import ServerEndingError
from puna.serving.answers import Progress

LAST_GRACE = 10.0
"""Seconds that ended requests may take to let go."""


@dataclass(slots=True)
class Entry:
    """A request under way."""

    id: str
    model: str
    method: str
    task: "asyncio.Task[object]"
    start_ns: int = field(default_factory=time.time_ns)
    output_tokens: int = 0
    queue_position: int = 0
    """How many are in front of it; 0: it does not wait."""
    cancelled: bool = False
    """Whether somebody asked for its end."""
    ended: bool = False
    """True if the server ended it because the server ends."""

    def hear(self, news: Progress) -> None:
        """Note how the request fares."""
        self.queue_position = news.position if news.phase == "queued" else 0


class Activity:
    """All requests under way, oldest first."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._numbers = itertools.count(1)
        self._idle = asyncio.Event()
        self.ending = False
        """True once the server takes no more requests."""

    @contextmanager
    def entered(self, model: str, method: str) -> Generator[Entry]:
        """List the current task's request for as long as the block lasts. ServerEndingError: too late for a new one."""
        if self.ending:
            raise ServerEndingError
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("no task runs")
        entry = Entry(id=f"r{next(self._numbers)}", model=model, method=method, task=task)
        self._entries[entry.id] = entry
        try:
            yield entry
        finally:
            del self._entries[entry.id]
            if not self._entries:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Take no more requests, give those under way some seconds to finish, and end the rest.

        Return when none is left, or after LAST_GRACE more seconds.
        """
        self.ending = True
        if await self._emptied(seconds):
            return
        for entry in self._entries.values():
            entry.ended = True
            entry.task.cancel()
        await self._emptied(LAST_GRACE)

    async def _emptied(self, seconds: float) -> bool:
        """Wait until no request is under way, and say whether that came."""
        if self._entries:
            self._idle.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds if seconds < math.inf else None)
        return not self._entries

    def entries(self, model: str = "") -> list[Entry]:
        """Return the requests, oldest first; only those of one model, as they named it, unless it is empty."""
        return [entry for entry in self._entries.values() if not model or entry.model == model]

    def cancel(self, id_: str) -> bool:
        """End a request; return whether there was one."""
        entry = self._entries.get(id_)
        if entry is None or entry.cancelled:
            return False
        entry.cancelled = True
        entry.task.cancel()
        return True
