"""The two lanes of worker processes in which templates run.

Theory. A template is an untrusted program and may run for ever, so it runs in a process that can be killed. A single
pool of workers would let such templates occupy every worker for the whole timeout. Therefore there are two lanes. Every
request begins in the quick lane, where it may run for QUICK_SECONDS, hundreds of times what a rendering takes. A
request that takes longer is killed there and begins anew in the slow lane, with the configured timeout. So
endless templates wait for each other in the slow lane, and all others wait for a few quick timeouts at most.

Within a lane a FairQueue gives the workers to templates in rotation, however many requests each template has.

Life of a worker: a lane starts workers on demand, up to its number of slots. A quick worker is kept for the next
request; a slow one ends with its request, and runs at low CPU priority. A request that is cancelled gives its worker
GRACE_SECONDS to finish, since killing a worker costs more than most renderings, and the slot is released only after
that. A start that is under way goes on without its request for the same reason.

Deadlines count CPU time, because on a busy machine a harmless rendering takes long by the clock; WALL_CLOCK_FACTOR
bounds the wall-clock time too.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from puna.errors import TemplateError, TemplateLimitError, TemplateRefusedError
from puna.limits import PREFIX, Limits
from puna.sandbox.process import Template, Worker, WorkerGoneError
from puna.sandbox.wire import JSON, InvalidAnswerError

log = logging.getLogger(__name__)

QUICK_SECONDS: Final = 0.25
"""CPU time of a request in the quick lane."""
WALL_CLOCK_FACTOR: Final = 4
"""Factor between the CPU time of a request and the wall-clock time that it may take on a busy machine."""
_MIN_DELAY: Final = 0.01
"""Least interval between two looks at a worker's CPU time."""
GRACE_SECONDS: Final = 0.05
"""How long a rendering may go on whose request was cancelled."""
_MAX_TIMER: Final = 1e6
"""The longest delay of a timer, in seconds."""
ENDED: Final = "template: the process that ran it has ended"


T = TypeVar("T")


class FairQueue:
    """Slots that waiters get in rotation of their names, and in order of arrival within a name."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        # An ordered dict of queues: the first name is served next and then moves to the end, each in constant time.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, name: str) -> None:
        """Wait for a slot. A waiter that is cancelled as it receives the slot gives it back."""
        if self._free:
            self._free -= 1
            return
        acquired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(acquired)
        try:
            await acquired
        except asyncio.CancelledError:
            # The slot was handed over in the turn of the loop in which the waiter was cancelled. Otherwise it would be
            # lost.
            if acquired.done() and not acquired.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Hand the slot to the first waiter of the next name, or make it free if nothing waits."""
        while self._waiting:
            name, waiters = next(iter(self._waiting.items()))
            acquired = waiters.popleft()
            if waiters:
                self._waiting.move_to_end(name)
            else:
                del self._waiting[name]
            # A waiter that was cancelled in this turn of the loop is still in the queue.
            if not acquired.done():
                acquired.set_result(None)
                return
        self._free += 1


class _Deadline:
    """Kills a worker that has used its CPU time, or WALL_CLOCK_FACTOR times as much time by the clock."""

    def __init__(self, worker: Worker, seconds: float) -> None:
        self._worker = worker
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._cpu_at_start = worker.cpu_seconds()
        self._last = self._loop.time() + seconds * WALL_CLOCK_FACTOR
        self._timer = self._loop.call_later(seconds, self._check)
        self._killed = False

    @property
    def exceeded(self) -> bool:
        """Whether the worker took too long: this object killed it, or its own timer ended it just before."""
        # Both ends look alike from the outside: the socket closes.
        return self._killed or self._loop.time() >= self._last

    def _check(self) -> None:
        # One timer per request instead of polling: the CPU time that is left cannot be used up any sooner than in as
        # much time by the clock.
        left = min(self._seconds - (self._worker.cpu_seconds() - self._cpu_at_start), self._last - self._loop.time())
        if left > 0:
            self._timer = self._loop.call_later(max(left, _MIN_DELAY), self._check)
        else:
            self._killed = True
            self._worker.kill()

    def cancel(self) -> None:
        """Stop watching the worker."""
        self._timer.cancel()


class Lane:
    """Workers, and the queue of requests for them."""

    def __init__(self, limits: Limits, slots: int, *, keeps: bool) -> None:
        """With `keeps`, workers stay for further requests. Otherwise each request gets a worker of its own, at low
        CPU priority.
        """
        self._limits = limits
        self._queue = FairQueue(slots)
        self._keeps = keeps
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(self, name: str, template: Template, request: dict[str, JSON], seconds: float) -> JSON:
        """Return a worker's answer. Raises TimeoutError if it takes too long, WorkerGoneError if it ends otherwise."""
        seconds = min(seconds, _MAX_TIMER)
        worker = await self._worker(name)
        try:
            # The worker sets a kernel timer by this number, for the case that the core is killed.
            answer = worker.ask(template, {**request, "seconds": seconds * WALL_CLOCK_FACTOR})
            deadline = _Deadline(worker, seconds)
            try:
                # A request that is cancelled leaves the answer pending, for `_give_back` to wait for.
                return await asyncio.shield(answer)
            except WorkerGoneError:
                if deadline.exceeded:
                    raise TimeoutError from None
                raise
            finally:
                deadline.cancel()
        finally:
            self._give_back(worker)

    async def warm(self) -> None:
        """Start a worker so that one is ready."""
        self._give_back(await self._worker(""))

    async def _worker(self, name: str) -> Worker:
        """Wait for a slot and return its worker; `_give_back` must be called with it."""
        await self._queue.acquire(name)
        while self._idle:
            worker = self._idle.pop()
            if not worker.gone:
                self._busy.add(worker)
                return worker
            # An idle worker may have ended by itself, because its memory had grown. See puna.sandbox.worker.
            self._in_background(worker.close())
        # A cancelled request does not cancel the start, which keeps the slot: otherwise clients that come and go could
        # start any number of processes.
        starting = self._in_background(self._start())
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._give_back_started)
            raise

    async def _start(self) -> Worker:
        try:
            if self._closed:
                raise WorkerGoneError
            worker = await Worker.start(self._limits, yielding=not self._keeps)
            # The sandbox may have been closed while the process started. No one else would end it.
            if self._closed:
                await worker.close()
                raise WorkerGoneError
        except BaseException as error:
            # `_give_back` is never called for a worker that did not start, so the slot is released here.
            self._queue.release()
            if isinstance(error, OSError):
                log.warning("no process for templates could be started: %s", error)
                raise WorkerGoneError from error
            raise
        self._busy.add(worker)
        return worker

    def _give_back_started(self, starting: asyncio.Task[Worker]) -> None:
        if not starting.cancelled() and starting.exception() is None:
            self._give_back(starting.result())

    def _give_back(self, worker: Worker) -> None:
        """Release the slot as soon as the worker has answered or is dead."""
        if worker.waiting:
            self._in_background(self._end(worker))
        else:
            self._put_back(worker)

    async def _end(self, worker: Worker) -> None:
        try:
            await worker.settled(GRACE_SECONDS)
        finally:
            self._put_back(worker)

    def _put_back(self, worker: Worker) -> None:
        self._busy.discard(worker)
        if self._keeps and not worker.gone and not self._closed:
            self._idle.append(worker)
        else:
            worker.kill()
            self._in_background(worker.close())
        self._queue.release()

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def close(self) -> None:
        """End all workers."""
        self._closed = True
        for worker in (*self._idle, *self._busy):
            worker.kill()
        for worker in self._idle:
            self._in_background(worker.close())
        self._idle.clear()
        # A task that ends may start another one in the background, so a single wait would not suffice.
        while self._background:
            await asyncio.wait(self._background)


class Lanes:
    """The quick lane and the slow lane."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._quick = Lane(limits, max(1, limits.template_workers), keeps=True)
        self._slow = Lane(limits, max(1, limits.template_workers), keeps=False)

    async def ask(self, name: str, template: Template, request: dict[str, JSON], read: Callable[[JSON], Any]) -> Any:  # noqa: ANN401
        """Return the answer of a worker, converted by `read`. Raises TemplateError and TemplateRefusedError.

        `name` identifies the template in the FairQueue: requests of one name wait for each other first.
        """
        seconds = self._limits.template_seconds
        try:
            answer = await self._quick.run(name, template, request, min(seconds, QUICK_SECONDS))
        # A worker may be gone for a reason of its own, such as memory that had grown, so the request gets one more try
        # in a fresh process.
        except (TimeoutError, WorkerGoneError):
            try:
                answer = await self._slow.run(name, template, request, seconds)
            except TimeoutError:
                raise TemplateLimitError(f"{seconds:g} s", f"{PREFIX}TEMPLATE_SECONDS") from None
            except WorkerGoneError:
                raise TemplateError(ENDED) from None
        return self._read(answer, read)

    def _read(self, answer: JSON, read: Callable[[JSON], Any]) -> Any:  # noqa: ANN401
        match answer:
            # The patterns check the shape of the answer, which a worker under a template's control may have made.
            case {"answer": value}:
                with suppress(InvalidAnswerError):
                    return read(value)
            case {"refused": str(text)}:
                raise TemplateRefusedError(text)
            case {"failed": str(text)}:
                raise TemplateError(text)
            case {"exceeded": "memory"}:
                limit = f"{self._limits.template_memory_bytes} bytes of memory"
                raise TemplateLimitError(limit, f"{PREFIX}TEMPLATE_MEMORY_BYTES")
            case {"exceeded": "output"}:
                limit = f"{self._limits.template_output_bytes} bytes of text"
                raise TemplateLimitError(limit, f"{PREFIX}TEMPLATE_OUTPUT_BYTES")
        raise TemplateError(ENDED)

    async def warm(self) -> None:
        """Start a quick worker so that one is ready for the first request."""
        await self._quick.warm()

    async def close(self) -> None:
        """End all workers."""
        await self._quick.close()
        await self._slow.close()
