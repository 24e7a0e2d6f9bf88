"""The thread that runs a model's steps, and the way of its results to the event loops.

llama.cpp's calls block, so each model has a thread for them. Requests wait on event loops. A result crosses over by
`call_soon_threadsafe`, which takes a lock and wakes the loop. One call for each event would cost more than the event,
so a BatchedDelivery collects the results of a step and makes one call for each loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from puna.backend import BackendError

T = TypeVar("T")


class ResultQueue(Generic[T]):
    """The results of one request, in order, for the coroutine that awaits them.

    Each token passes here. With a single reader and without a bound, it needs a fraction of the calls of asyncio.Queue.
    """

    def __init__(self) -> None:
        """Belong to the running event loop."""
        self.loop = asyncio.get_running_loop()
        self._items: deque[T | BaseException] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, item: T | BaseException) -> None:
        """Append a result. Call it on the event loop only."""
        self._items.append(item)
        reader, self._reader = self._reader, None
        # A reader that was cancelled leaves its future behind.
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def get(self) -> T:
        """Return the next result. Raises the result if it is an exception."""
        while not self._items:
            self._reader = self.loop.create_future()
            await self._reader
        item = self._items.popleft()
        if isinstance(item, BaseException):
            raise item
        return item


class BatchedDelivery:
    """Collects results on the step thread and delivers them with one call for each event loop."""

    def __init__(self) -> None:
        self._batches: dict[asyncio.AbstractEventLoop, list[tuple[ResultQueue[Any], Any]]] = {}

    def put(self, results: ResultQueue[T], item: T | BaseException) -> None:
        """Add a result to the next delivery."""
        self._batches.setdefault(results.loop, []).append((results, item))

    def send(self) -> None:
        """Deliver all results that were put since the last call."""
        # One call for each loop: `call_soon_threadsafe` writes to the loop's wakeup socket each time.
        batches, self._batches = self._batches, {}
        for loop, batch in batches.items():
            loop.call_soon_threadsafe(_deliver, batch)


def _deliver(batch: list[tuple[ResultQueue[Any], Any]]) -> None:
    for results, item in batch:
        results.put(item)


class StepThread:
    """Calls `step` in a loop, and sleeps while it reports no work.

    `on_end` is called on the thread when it ends, also if `step` raised, so that requests that still wait get an error.
    """

    def __init__(self, name: str, step: Callable[[], bool], on_end: Callable[[], None]) -> None:
        """Create the thread. `step` returns whether there is more work at once."""
        self._step, self._on_end = step, on_end
        self._wake = threading.Event()
        self._closing = False
        self._steps = 0
        self._busy = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have the thread look for work. May be called from any thread."""
        self._wake.set()

    def step(self) -> int | None:
        """Return the number of steps so far; None while the thread sleeps. May be called from any thread."""
        return self._steps if self._busy else None

    def close(self) -> None:
        """End the thread after the running step, and wait for it."""
        # Set before the event, so that a thread that wakes up sees it.
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing:
                # Cleared before the step looks for work: work that arrives during the step sets it again and is not
                # missed.
                self._wake.clear()
                self._busy = True
                more = self._step()
                self._steps += 1
                # `_busy` stays true between steps, so that the core does not take a pause between two of them for an
                # idle model.
                if not more and not self._closing:
                    self._busy = False
                    self._wake.wait()
            # Not after an error: the core ends a host whose thread has died, since it makes no further step.
            self._busy = False
        finally:
            self._on_end()


def unloaded_error() -> BackendError:
    """Return the error of requests and calls that meet a model which is unloaded."""
    return BackendError("the model was unloaded")
