"""The thread that runs a model's steps, and the way of its results to the event loops.

llama.cpp's calls block, so each model has a thread for them. Requests wait on event loops. A BatchedDelivery collects
the results of a step and hands them over at once for each loop.

Theory. `call_soon_threadsafe` wakes the loop by a call that releases Python's lock. The loop's thread takes the lock at
once, and the step thread gets it back only when the loop has done its work, while nothing is computed. A LoopInbox
wakes the loop without releasing the lock. So the step thread goes on to llama.cpp, which releases the lock, and the
loop works beside it.
"""

import asyncio
import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from puna.backend import BackendError

T = TypeVar("T")

_WAKE_BYTES: Final = 64
"""Bytes that are read of the pipe of a LoopInbox. It seldom holds more than one."""
# PyDLL calls without releasing Python's lock. The pipe does not block, so the call takes a microsecond or two.
_write: Final = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)


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


class LoopInbox:
    """The results that a step thread has handed to one event loop and that it has not taken yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to a loop. Call it on the loop's thread."""
        self._loop = loop
        self._batches: deque[list[tuple[ResultQueue[Any], Any]]] = deque()
        self._woken = False
        """True from the waking of the loop until it takes the batches."""
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        loop.add_reader(self._reading, self._take)

    def deliver(self, batch: list[tuple[ResultQueue[Any], Any]]) -> None:
        """Have the loop put results into their queues. Call it on any thread. A loop that has ended takes nothing."""
        self._batches.append(batch)
        # `_take` clears the flag before it takes the batches, so a batch that finds it set is taken.
        if not self._woken:
            self._woken = True
            _write(self._writing, b"\0", 1)

    def close(self) -> None:
        """Close the pipe once the loop has taken all results. Call it on any thread, when nothing is delivered."""
        try:
            self._loop.call_soon_threadsafe(self._close)
        except RuntimeError:  # the loop is closed
            self._close_pipe()

    def _take(self) -> None:
        os.read(self._reading, _WAKE_BYTES)
        self._woken = False
        self._put_all()

    def _put_all(self) -> None:
        while self._batches:
            for results, item in self._batches.popleft():
                results.put(item)

    def _close(self) -> None:
        self._put_all()
        self._loop.remove_reader(self._reading)
        self._close_pipe()

    def _close_pipe(self) -> None:
        for end in (self._reading, self._writing):
            os.close(end)


class BatchedDelivery:
    """Collects results on the step thread and hands them over with one call for each event loop."""

    def __init__(self) -> None:
        self._inboxes: dict[asyncio.AbstractEventLoop, LoopInbox] = {}
        self._batches: dict[LoopInbox, list[tuple[ResultQueue[Any], Any]]] = {}

    def connect(self, results: ResultQueue[T]) -> None:
        """Make a way to the event loop of a request. Call it there, before the first result."""
        if results.loop not in self._inboxes:
            self._inboxes[results.loop] = LoopInbox(results.loop)

    def put(self, results: ResultQueue[T], item: T | BaseException) -> None:
        """Add a result to the next delivery."""
        self._batches.setdefault(self._inboxes[results.loop], []).append((results, item))

    def send(self) -> None:
        """Deliver all results that were put since the last call."""
        if self._batches:
            batches, self._batches = self._batches, {}
            for inbox, batch in batches.items():
                inbox.deliver(batch)

    def close(self) -> None:
        """Free the ways to the event loops. Call it when all results are sent."""
        inboxes, self._inboxes = self._inboxes, {}
        for inbox in inboxes.values():
            inbox.close()


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
