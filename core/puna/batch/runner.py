"""Runs the requests of batches while the server has nothing else to do.

Theory. A request of a batch starts only when no other request that may run a model is under way, and none has been for
SETTLE_SECONDS. It then has the lowest priority in every queue and does not count where requests are refused for being
too many, so no other request is refused or delayed in a queue because of it.

Requests that run are interrupted, that is, cancelled and put back, in three cases. When another request waits for a
slot or for a model, all are interrupted, since any of them may hold what it waits for. When another request begins,
those that run as one call are interrupted, embeddings, since they hold no slot for which the other one could be seen to
wait. When the server is about to end, all are interrupted. An interrupted request has written nothing.

A request that has finished is no longer interrupted: its result is stored, and it counts when it is on the disk. So a
request that is run twice, because it was interrupted or because the server was killed, has one result.

The keys of batches take turns of TURN requests. The batches of one key run in the order of their creation. All state
belongs to the event loop; only the store is used from threads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from puna.auth.errors import QuotaExceededError, UnauthenticatedError
from puna.batch import batch as batches
from puna.batch.batch import Batch
from puna.batch.records import Record
from puna.batch.store import BatchStore
from puna.batch.work import Work
from puna.blocking import in_thread
from puna.errors import TooLargeError
from puna.serving.activity import Activity
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 0.5
"""Seconds without other requests before batches run, so that they do not start between two requests of one client."""
TURN: Final = 64
"""Requests of one key after which those of another key run."""
LOOK_SECONDS: Final = 1.0
"""Seconds between two looks at the time and at the keys while batches are unfinished."""
CLEAN_SECONDS: Final = 60.0
"""Seconds between two removals of what has been kept long enough, and the pause after a disk has failed."""
EXPIRED_AT_ONCE: Final = 256
"""Requests of an expired batch whose errors are stored together."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a request."""

    payload: bytes
    failed: bool
    again: bool = False
    """Whether the request may succeed if it is run again."""


class LaterError(Exception):
    """The request cannot run now. It is put back."""


class Performer:
    """Runs requests. The runner knows nothing of what they contain."""

    async def run(self, batch: Batch, number: int, request: bytes) -> Outcome:
        """Run a request as its owner.

        Raises UnauthenticatedError if the owner's key is gone, QuotaExceededError, and LaterError.
        """
        raise NotImplementedError

    def check_owner(self, batch: Batch) -> None:
        """Raise UnauthenticatedError if the key of the owner is gone."""

    def expired(self, batch: Batch, number: int, request: bytes) -> bytes:
        """Return the error of a request that did not run in time. Blocks."""
        raise NotImplementedError

    def refused(self, batch: Batch, number: int, request: bytes, error: TooLargeError) -> bytes:
        """Return the error of a request whose answer cannot be stored. Blocks."""
        raise NotImplementedError


@dataclass(eq=False, slots=True)
class _Job:
    """A request that is handed out."""

    work: Work
    record: Record
    task: asyncio.Task[None] | None = None
    may_be_interrupted: bool = True
    stored: bool = False
    """Whether its result is on the disk."""

    def interrupt(self) -> None:
        if self.may_be_interrupted and self.task is not None:
            self.task.cancel()


class Runner:
    """Runs batches until its task is cancelled. It gives way to requests as `puna.serving.activity.Yielding`."""

    def __init__(
        self,
        store: BatchStore,
        activity: Activity,
        performer: Performer,
        clean: Callable[[], None],
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """`clean` removes what has been kept long enough, and blocks."""
        self._store = store
        self._activity = activity
        self._performer = performer
        self._clean = clean
        self._settle_seconds = settle_seconds
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._works: dict[str, Work] = {}
        self._owners: deque[str] = deque()
        """Owners of unfinished batches; the first has the turn."""
        self._left_in_turn = TURN
        self._jobs: set[_Job] = set()
        self._idle_since = 0.0
        self._disk_failed_until = 0.0

    # ---- giving way --------------------------------------------------------------------------------------------------

    def on_begin(self) -> None:
        """Interrupt the requests that run as one call."""
        self._interrupt(job for job in self._jobs if job.record.flag)

    def on_wait(self) -> None:
        """Interrupt all requests."""
        self._interrupt(self._jobs)

    def on_idle(self) -> None:
        """Begin to wait until the server has been idle for long enough; interrupt all requests if it is leaving."""
        self._idle_since = asyncio.get_running_loop().time()
        if self._activity.leaving:
            self._interrupt(self._jobs)
        self._wake.set()

    def _interrupt(self, jobs: Iterable[_Job]) -> None:
        for job in tuple(jobs):
            job.interrupt()

    # ---- what others call --------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Look at the batches again: one was created or has ended."""
        self._wake.set()
        self._tell()

    def stop_batch(self, batch: Batch) -> None:
        """Interrupt the requests of a batch that has ended."""
        self._interrupt(job for job in self._jobs if job.work.batch is batch)
        self.changed()

    async def news(self, seconds: float) -> None:
        """Wait until a result is stored or a batch ends, or for some seconds."""
        await _within(seconds, self._news)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # ---- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run batches. Cancelling interrupts their requests and waits for those that are being stored."""
        loop = asyncio.get_running_loop()
        next_clean = next_look = 0.0
        try:
            while True:
                self._wake.clear()
                if loop.time() >= next_clean:
                    next_clean = loop.time() + CLEAN_SECONDS
                    await self._guarded(in_thread(self._clean))
                if loop.time() >= next_look:
                    next_look = loop.time() + LOOK_SECONDS
                    await self._guarded(self._look())
                await self._start_jobs()
                await _within(self._pause(), self._wake)
        finally:
            self._interrupt(self._jobs)
            if tasks := [job.task for job in self._jobs if job.task]:
                await asyncio.wait(tasks)
            for work in self._works.values():
                work.close()

    def _pause(self) -> float:
        """Return the seconds until something must be looked at, if nothing happens before."""
        if not self._store.unfinished():
            return CLEAN_SECONDS
        settling = self._idle_since + self._settle_seconds - asyncio.get_running_loop().time()
        return min(settling, LOOK_SECONDS) if settling > 0 and not self._activity.busy else LOOK_SECONDS

    async def _guarded(self, step: Awaitable[None]) -> None:
        """Await a step that uses the disk. An error is logged, and the next round tries again."""
        try:
            await step
        except OSError as error:
            self._pause_for_disk(error)

    def _pause_for_disk(self, error: OSError) -> None:
        self._disk_failed_until = asyncio.get_running_loop().time() + CLEAN_SECONDS
        log.error("batches pause, since their folder cannot be written: %s", summarize(error))

    async def _look(self) -> None:
        """End the batches whose owner's key is gone, and those whose time is over."""
        for each in self._store.unfinished():
            try:
                self._performer.check_owner(each)
            except UnauthenticatedError:
                await self._end(each, batches.REVOKED)
        for each in self._store.overdue():
            await self._expire(each)
        self._sort()

    async def _end(self, batch: Batch, state: str) -> None:
        await in_thread(self._store.end, batch, state)
        self.stop_batch(batch)

    async def _expire(self, batch: Batch) -> None:
        """Store an error for each request without a result, and end the batch."""
        for job in self._jobs:
            if job.work.batch is batch:
                job.interrupt()
        await in_thread(self._store_expired, batch)
        await self._end(batch, batches.EXPIRED)

    def _store_expired(self, batch: Batch) -> None:
        work = Work(batch)
        found: list[tuple[int, bytes]] = []
        try:
            while (record := work.take()) is not None:
                found.append((record.number, self._performer.expired(batch, record.number, record.payload)))
                if len(found) == EXPIRED_AT_ONCE:
                    self._store.add_results(batch, found, failed=True, last=batches.EXPIRED)
                    found = []
            self._store.add_results(batch, found, failed=True, last=batches.EXPIRED)
        finally:
            work.close()

    # ---- jobs --------------------------------------------------------------------------------------------------------

    def _sort(self) -> None:
        """Bring the works and the owners up to date with the store."""
        unfinished = {each.id: each for each in self._store.unfinished()}
        for id_, work in list(self._works.items()):
            if id_ not in unfinished and not work.running:
                work.close()
                del self._works[id_]
        for id_, each in unfinished.items():
            if id_ not in self._works:
                self._works[id_] = Work(each)
            if each.config.owner not in self._owners:
                self._owners.append(each.config.owner)

    def _may_start(self) -> bool:
        now = asyncio.get_running_loop().time()
        activity = self._activity
        if activity.busy or activity.leaving or len(self._jobs) >= self._store.limits.max_batch_concurrency:
            return False
        return now >= self._idle_since + self._settle_seconds and now >= self._disk_failed_until

    async def _start_jobs(self) -> None:
        self._sort()
        while self._may_start() and (work := self._next_work()) is not None:
            try:
                record = await in_thread(work.take)
            except OSError as error:
                self._pause_for_disk(error)
                return
            if record is None:
                continue
            # A request may have begun while the thread was reading.
            if not self._may_start() or work.batch.ended:
                work.put_back(record)
                continue
            work.running += 1
            self._left_in_turn -= 1
            job = _Job(work, record)
            self._jobs.add(job)
            job.task = asyncio.create_task(self._run(job))
            # Not a `finally` in the task: a task that is cancelled before its first step never enters one.
            job.task.add_done_callback(partial(self._on_end, job))

    def _next_work(self) -> Work | None:
        """Return the oldest batch with requests of the owner whose turn it is; None if no batch has one to run."""
        now = asyncio.get_running_loop().time()
        ready: dict[str, Work] = {}
        for work in self._works.values():
            if not (work.batch.ended or work.exhausted or work.paused_until > now):
                ready.setdefault(work.batch.config.owner, work)
        for _ in range(len(self._owners)):
            owner = self._owners[0]
            if owner in ready and self._left_in_turn > 0:
                return ready[owner]
            self._owners.rotate(-1)
            self._left_in_turn = TURN
            if owner not in ready and not any(each.batch.config.owner == owner for each in self._works.values()):
                self._owners.remove(owner)
        return ready.get(self._owners[0]) if self._owners else None

    async def _run(self, job: _Job) -> None:
        batch, record = job.work.batch, job.record
        try:
            await in_thread(self._store.start, batch)
            outcome = await self._performer.run(batch, record.number, record.payload)
            if not (outcome.again and job.work.failed(record)):
                # From here on the result exists, and only has to be stored.
                job.may_be_interrupted = False
                await self._store_result(job, outcome)
                job.stored = True
        except UnauthenticatedError:
            await self._end(batch, batches.REVOKED)
        except QuotaExceededError as error:
            job.work.paused_until = asyncio.get_running_loop().time() + error.retry_seconds
        except LaterError:
            pass
        except OSError as error:
            self._pause_for_disk(error)

    def _on_end(self, job: _Job, task: asyncio.Task[None]) -> None:
        if not job.stored:
            job.work.put_back(job.record)
        job.work.running -= 1
        self._jobs.discard(job)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of this program. The request is tried again later, so that the fault does not fill the log.
            log.error("a request of a batch failed: %s", summarize(error))
            job.work.paused_until = asyncio.get_running_loop().time() + CLEAN_SECONDS
        self.changed()

    async def _store_result(self, job: _Job, outcome: Outcome) -> None:
        batch, record = job.work.batch, job.record
        try:
            await in_thread(self._store.add_result, batch, record.number, outcome.payload, failed=outcome.failed)
        except TooLargeError as error:
            payload = await in_thread(self._performer.refused, batch, record.number, record.payload, error)
            await in_thread(self._store.add_result, batch, record.number, payload, failed=True)


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for an event, or for some seconds."""
    # Not asyncio.wait_for, which before Python 3.12 drops a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
