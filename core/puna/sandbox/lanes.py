"""Two lanes of workers: which request runs in which, and for how long.

Every request begins in the quick lane, where it may run for QUICK_SECONDS: hundreds of times what a rendering takes.
One that takes longer is killed there and begins anew in the slow lane, for as long as the setting says. Templates that
never end wait for each other in the slow lane, and others wait at most for a few quick turns. Within a lane the
templates take turns, however many requests each of them has.
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
WALL_CLOCK_FACTOR: Final = 4
"""How many times its seconds a request may take where the processor is busy with other things."""
_MIN_DELAY: Final = 0.01
GRACE_SECONDS: Final = 0.05
"""How long a rendering whose request has gone may go on: killing a worker costs more than most renderings."""
_MAX_TIMER: Final = 1e6
"""Seconds that timers can be set to."""
ENDED: Final = "template: the process that ran it has ended"


T = TypeVar("T")


class FairQueue:
    """Places that waiters of different names get by turns."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, name: str) -> None:
        """Wait for a place."""
        if self._free:
            self._free -= 1
            return
        acquired: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(acquired)
        try:
            await acquired
        except asyncio.CancelledError:
            if acquired.done() and not acquired.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give a place back: to the next name's first."""
        while self._waiting:
            name, waiters = next(iter(self._waiting.items()))
            acquired = waiters.popleft()
            if waiters:
                self._waiting.move_to_end(name)
            else:
                del self._waiting[name]
            if not acquired.done():
                acquired.set_result(None)
                return
        self._free += 1


class _Deadline:
    """Kills a worker that has computed for too long, or on a busy machine has not got on for much longer."""

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
        """True if the worker took too long. It was killed, or its own timer ended it before this one was looked at."""
        return self._killed or self._loop.time() >= self._last

    def _check(self) -> None:
        left = min(self._seconds - (self._worker.cpu_seconds() - self._cpu_at_start), self._last - self._loop.time())
        if left > 0:
            self._timer = self._loop.call_later(max(left, _MIN_DELAY), self._check)
        else:
            self._killed = True
            self._worker.kill()

    def cancel(self) -> None:
        """Let it go on."""
        self._timer.cancel()


class Lane:
    """Some workers and the line in front of them."""

    def __init__(self, limits: Limits, places: int, *, keeps: bool) -> None:
        """`keeps`: whether a worker stays for the next request, or ends with the one that it was started for.

        The latter leave the processor to others.
        """
        self._limits = limits
        self._queue = FairQueue(places)
        self._keeps = keeps
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def run(self, name: str, template: Template, request: dict[str, JSON], seconds: float) -> JSON:
        """Return a worker's answer. TimeoutError: it took too long; WorkerGoneError: it ended otherwise."""
        seconds = min(seconds, _MAX_TIMER)
        worker = await self._worker(name)
        try:
            answer = worker.ask(template, {**request, "seconds": seconds * WALL_CLOCK_FACTOR})
            deadline = _Deadline(worker, seconds)
            try:
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
        """Have a worker ready."""
        self._give_back(await self._worker(""))

    async def _worker(self, name: str) -> Worker:
        """Wait for a place and return a worker for it, which `_leave` takes back."""
        await self._queue.acquire(name)
        while self._idle:
            worker = self._idle.pop()
            if not worker.gone:
                self._busy.add(worker)
                return worker
            self._in_background(worker.close())
        # A start goes on when the request goes, and keeps the place: otherwise clients that come and go start many.
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
            if self._closed:
                await worker.close()
                raise WorkerGoneError
        except BaseException as error:
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
        """Give the place back, once the worker has done what it was asked or is dead."""
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
        while self._background:
            await asyncio.wait(self._background)


class Lanes:
    """Both lanes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._quick = Lane(limits, max(1, limits.template_workers), keeps=True)
        self._slow = Lane(limits, max(1, limits.template_workers), keeps=False)

    async def ask(self, name: str, template: Template, request: dict[str, JSON], read: Callable[[JSON], Any]) -> Any:  # noqa: ANN401
        """Return what `read` makes of a worker's answer. Raises TemplateError and TemplateRefusedError.

        `name` is whose turn it is: requests of one name wait for each other rather than for those of others.
        """
        seconds = self._limits.template_seconds
        try:
            answer = await self._quick.run(name, template, request, min(seconds, QUICK_SECONDS))
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
        """Have a worker ready before the first request."""
        await self._quick.warm()

    async def close(self) -> None:
        """End all workers."""
        await self._quick.close()
        await self._slow.close()
