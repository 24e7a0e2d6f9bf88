"""The thread on which a model works, step by step, and the way of its results to the event loops."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from puna.backend import BackendError

T = TypeVar("T")


class ResultQueue(Generic[T]):
    """Where a request's results arrive on its event loop. An error put into it is raised to who reads."""

    def __init__(self) -> None:
        """Belong to the running loop."""
        self.loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[T | BaseException] = asyncio.Queue()

    def put(self, item: T | BaseException) -> None:
        """Add a result, on its loop."""
        self._items.put_nowait(item)

    async def get(self) -> T:
        """Return the next result, when there is one."""
        item = await self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item


class BatchedDelivery:
    """Results on their way: collected during a step, and handed to each loop by one call."""

    def __init__(self) -> None:
        """Start empty."""
        self._batches: dict[asyncio.AbstractEventLoop, list[tuple[ResultQueue[Any], Any]]] = {}

    def put(self, results: ResultQueue[T], item: T | BaseException) -> None:
        """Add a result to what is sent next."""
        self._batches.setdefault(results.loop, []).append((results, item))

    def send(self) -> None:
        """Hand everything over."""
        batches, self._batches = self._batches, {}
        for loop, batch in batches.items():
            loop.call_soon_threadsafe(_deliver, batch)


def _deliver(batch: list[tuple[ResultQueue[Any], Any]]) -> None:
    for results, item in batch:
        results.put(item)


class StepThread:
    """Calls `step` again and again, and sleeps while that has nothing to do.

    `ended` is called on the thread when it ends, also when `step` failed: whoever waits must be told.
    """

    def __init__(self, name: str, step: Callable[[], bool], on_end: Callable[[], None]) -> None:
        """`step` returns whether there is more to do at once."""
        self._step, self._on_end = step, on_end
        self._wake = threading.Event()
        self._closing = False
        self._steps = 0
        self._busy = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Have it look for work. From any thread."""
        self._wake.set()

    def step(self) -> int | None:
        """Return how many steps were made; None while it sleeps. From any thread."""
        return self._steps if self._busy else None

    def close(self) -> None:
        """Have it end after the running step, and wait for that."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._wake.clear()
                self._busy = True
                more = self._step()
                self._steps += 1
                if not more and not self._closing:
                    self._busy = False
                    self._wake.wait()
        finally:
            self._on_end()


def unloaded_error() -> BackendError:
    """Return what those hear who still wait when the thread has ended."""
    return BackendError("the model was unloaded")
