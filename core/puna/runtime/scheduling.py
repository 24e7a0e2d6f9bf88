"""Which model is loaded next: the queue of requests that need a load, and the load turn that passes between models.

Theory. Each model that requests wait for has at most one LoadJob, a task that makes room, ends an old instance if there
is one, and loads. Requests for the same model share its job and its error. Jobs of different models compete for the
machine's memory, so they take turns: one job at a time holds the load turn, and the most urgent waiting request decides
whose model is next. A job gives the turn up once its host has a place, so loads overlap as long as there is room for
all. While there is none for the next model (`ModelProvider.must_wait`), no job begins, and a more urgent request that
comes meanwhile still goes first.

No model may keep the others from being loaded, whatever its host does. So a job loses or gives up the turn in two
more cases. A job that must wait for other requests, for the end of a sequence say, gives the turn up and gets in line
for it again afterwards (`LoadJob.wait_without_turn`); jobs that come back go before new ones. A job that reports no
progress for `stall_seconds` while others want the turn loses it and goes on beside them.

Order of events for a request: `wait` puts it into two queues, that of all requests and that of its model. `_next` gives
the free turn to the first request whose model has no job, which starts the job. When the job ends, `_deliver` hands the
model, or the error, to every request that waits for the same. A request that is cancelled leaves the queues; if it was
the last one for its model, the job is cancelled too.

Races. Everything runs on one event loop, so only what happens across an `await` can race. A model may be delivered to a
request in the turn of the loop in which the request is cancelled: then `wait` releases the lease. Requests may join a
model's queue while its cancelled job still winds down: they get a job of their own.
"""

import asyncio
import contextvars
import logging
import math
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from puna.errors import LoadFailedError
from puna.runtime.admission import PositionReporter, Ticket, WaitQueue
from puna.runtime.requirements import LeaseKind, Loading, ModelRequirements, OnProgress, Queued

log = logging.getLogger(__name__)

M = TypeVar("M")
W = TypeVar("W")

LOADED: Final = Loading(1.0)
LOOK_SECONDS: Final = 0.25
"""Pause between two questions whether a model must still wait for the loads of others."""
PROGRESS_SECONDS: Final = 0.25
"""Least interval between two progress reports to the requests that wait behind the first."""


@dataclass(slots=True, eq=False)
class PendingRequest(Generic[M]):
    """A request in the queue. `outcome` is done once the request has its model, or has left the queue."""

    requirements: ModelRequirements
    kind: LeaseKind
    on_progress: OnProgress
    outcome: asyncio.Future[M]
    context: contextvars.Context
    """The context of the request's task, so that what its job logs bears the request's id."""
    last_position: int = -1
    ticket: Ticket["PendingRequest[M]"] | None = None
    """Its ticket in the queue of all requests and in that of its model; None once it has left them."""

    def report_position(self, in_front: int) -> None:
        """Report a position if it has changed."""
        if self.last_position != in_front:
            self.last_position = in_front
            self.on_progress(Queued(in_front))


class LoadJob(Generic[M]):
    """The work for one model, as that work sees the scheduler."""

    def __init__(self, scheduler: "Scheduler[M]", request: PendingRequest[M]) -> None:
        self.scheduler = scheduler
        self.request = request
        """The request that started the job."""
        self.last_progress = 0.0
        """When it last made progress, by the event loop's clock."""
        self.unwanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once no request waits for the model any more."""
        self._last_report = -math.inf

    def cancel(self) -> None:
        """Mark the job as unwanted, which ends its work."""
        if not self.unwanted.done():
            self.unwanted.set_result(None)

    async def wait_without_turn(self, awaitable: Awaitable[W]) -> W:
        """Give up the load turn, wait for `awaitable`, and wait for the turn again."""
        self.scheduler.give_up_turn(self)
        result = await awaitable
        await self.scheduler.regain_turn(self)
        return result

    def give_up_turn(self) -> None:
        """Let other models be loaded beside this one from now on."""
        self.scheduler.give_up_turn(self)

    async def regain_turn(self) -> None:
        """Wait until this job holds the load turn, as it does at its beginning."""
        await self.scheduler.regain_turn(self)

    def keep_turn(self) -> None:
        """Show the scheduler that the job does not stall, although it reports no progress."""
        self.last_progress = asyncio.get_running_loop().time()

    def report(self, progress: Queued | Loading) -> None:
        """Report progress to the waiting requests. This also shows the scheduler that the job does not stall.

        A transfer of files does not count as progress: it may last for minutes and needs nothing that other loads need.
        """
        now = asyncio.get_running_loop().time()
        # Other models are loaded beside a transfer, which takes no memory.
        if not (isinstance(progress, Loading) and progress.transfers):
            self.last_progress = now
        self.request.on_progress(progress)
        # With thousands of waiters, telling each of them every fraction would cost more than the load itself.
        if now - self._last_report >= PROGRESS_SECONDS or progress == LOADED:
            self._last_report = now
            for other in self.scheduler.waiting_for(self.request.requirements.key):
                other.on_progress(progress)


class ModelProvider(Protocol[M]):
    """The operations on models that the scheduler calls."""

    async def provide(self, requirements: ModelRequirements, job: LoadJob[M]) -> M:
        """Make room, load, and return a model that meets the requirements."""

    def must_wait(self, requirements: ModelRequirements) -> bool:
        """Return whether loads that are under way must end before a model can be loaded."""

    def satisfies(self, model: M, requirements: ModelRequirements) -> bool:
        """Return whether a loaded model meets other requirements too."""

    def acquire(self, model: M, kind: LeaseKind) -> None:
        """Count a lease of a model."""

    def release(self, model: M, kind: LeaseKind) -> None:
        """End a lease of a model."""


class Scheduler(Generic[M]):
    """Gives each request its model, loading models in turns.

    `stall_seconds` is how long a job may hold the load turn without progress while others want it.
    """

    def __init__(self, models: ModelProvider[M], stall_seconds: float) -> None:
        self._models = models
        self._stall_seconds = stall_seconds
        self._queue: WaitQueue[PendingRequest[M]] = WaitQueue()
        self._background = 0
        """Number of requests of batches in the queue."""
        self._by_model: dict[str, WaitQueue[PendingRequest[M]]] = {}
        self._reporter = PositionReporter(self._queue, self._report_position)
        self._jobs: dict[str, LoadJob[M]] = {}
        """The running jobs, by model."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._current: LoadJob[M] | None = None
        """The job that holds the load turn."""
        self._timer: asyncio.TimerHandle | None = None
        """When to look whether the current job stalls."""
        self._held: PendingRequest[M] | None = None
        """The first request, if its model must wait for loads that are under way."""
        self._look: asyncio.TimerHandle | None = None
        """When to look whether it still must."""
        self._resuming: deque[tuple[LoadJob[M], asyncio.Future[None]]] = deque()
        """Jobs that gave up the turn and want it back."""
        self._closed = False

    async def close(self) -> None:
        """Cancel every job and every waiting request, and wait for the jobs to end."""
        # First of all, since each job that ends calls `_next`, which must start no further load.
        self._closed = True
        for job in self._jobs.values():
            job.request.outcome.cancel()
            job.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        while self._queue:
            self._queue.next().outcome.cancel()

    @property
    def closed(self) -> bool:
        """Whether nothing is loaded any more."""
        return self._closed

    @property
    def waiting(self) -> int:
        """Number of waiting requests, including the requests whose jobs run. Those of batches do not count."""
        jobs = sum(job.request.kind is not LeaseKind.BACKGROUND for job in self._jobs.values())
        return len(self._queue) - self._background + jobs

    def waiting_for(self, model: str) -> list[PendingRequest[M]]:
        """Return the requests that wait for a model, without the request that started its job."""
        return list(self._by_model.get(model, ()))

    async def wait(self, requirements: ModelRequirements, kind: LeaseKind, priority: int, on_progress: OnProgress) -> M:
        """Wait for a model and return it with a lease of this kind. Raises what `provide` raises."""
        pending: PendingRequest[M] = PendingRequest(
            requirements,
            kind,
            on_progress,
            asyncio.get_running_loop().create_future(),
            # The job runs in this context if the request starts it. See `_next`.
            contextvars.copy_context(),
        )
        ticket = pending.ticket = self._queue.join(pending, priority)
        self._background += kind is LeaseKind.BACKGROUND
        self._by_model.setdefault(requirements.key, WaitQueue()).add(ticket)
        self._reporter.joined(ticket)
        self._next()
        try:
            return await pending.outcome
        except asyncio.CancelledError:
            if pending.outcome.cancelled():
                self._leave(pending)
            # The model was delivered in the turn of the loop in which this request was cancelled.
            elif pending.outcome.exception() is None:
                self._models.release(pending.outcome.result(), kind)
            raise

    # ---- the queue ---------------------------------------------------------------------------------------------------

    def _report_position(self, pending: PendingRequest[M], in_front: int) -> None:
        # The running jobs together count as one in front, so that 0 means that the wait for a turn is over.
        pending.report_position(in_front + bool(self._jobs))

    def _take(self, pending: PendingRequest[M]) -> None:
        """Remove a request from the queues. Does nothing if it has left them."""
        key, ticket = pending.requirements.key, pending.ticket
        if ticket is None:
            return
        pending.ticket = None
        self._background -= pending.kind is LeaseKind.BACKGROUND
        self._queue.leave(ticket)
        if (queue := self._by_model.get(key)) is not None:
            queue.leave(ticket)
            if not queue:
                del self._by_model[key]

    def _leave(self, pending: PendingRequest[M]) -> None:
        """Remove a cancelled request, and cancel its model's job if no other request wants it."""
        self._take(pending)
        self._reporter.changed()
        key = pending.requirements.key
        job = self._jobs.get(key)
        # The request that started the job has left the queues already, so its outcome is looked at as well.
        if job and job.request.outcome.done() and key not in self._by_model:
            job.cancel()

    def _first(self) -> PendingRequest[M] | None:
        """Return the first request whose model has no job."""
        # One head per model: the cost grows with the models and not with the requests that wait.
        heads = [queue.first() for key, queue in self._by_model.items() if key not in self._jobs]
        return min(heads).item if heads else None

    # ---- the load turn -----------------------------------------------------------------------------------------------

    def give_up_turn(self, job: LoadJob[M]) -> None:
        """Pass the load turn on if this job holds it."""
        if self._current is job:
            self._current = None
            # The timer belongs to the turn. The next holder starts its own.
            if self._timer is not None:
                self._timer.cancel()
            self._next()

    async def regain_turn(self, job: LoadJob[M]) -> None:
        """Wait until this job holds the load turn."""
        if self._current is job:
            return
        resumed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._resuming.append((job, resumed))
        self._next()
        await resumed

    def _next(self) -> None:
        """Give the turn away if it is free: first to jobs that want it back, then to the most urgent request."""
        if self._current is not None or self._closed:
            return
        while self._resuming:
            job, resumed = self._resuming.popleft()
            # The future of a job that was cancelled meanwhile is done.
            if not resumed.done():
                self._start_turn(job)
                resumed.set_result(None)
                return
        if (pending := self._first()) is not None and not self._hold(pending):
            self._take(pending)
            job = self._jobs[pending.requirements.key] = LoadJob(self, pending)
            self._start_turn(job)
            self._reporter.changed()
            task = asyncio.create_task(self._run(job), context=pending.context)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _hold(self, pending: PendingRequest[M]) -> bool:
        """Return whether the first request must wait for loads. It is asked anew after a while and when a job ends."""
        # A thousand requests that join the queue behind it change nothing.
        if self._held is pending:
            return True
        if not self._models.must_wait(pending.requirements):
            return False
        self._held = pending
        if self._look is not None:
            self._look.cancel()
        self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look_again)
        return True

    def _look_again(self) -> None:
        self._held = None
        self._next()

    def _start_turn(self, job: LoadJob[M]) -> None:
        self._current = job
        job.last_progress = asyncio.get_running_loop().time()
        self._check_stall_in(self._stall_seconds)

    def _check_stall_in(self, seconds: float) -> None:
        if math.isfinite(seconds):
            self._timer = asyncio.get_running_loop().call_later(seconds, self._check_stall)

    def _check_stall(self) -> None:
        """Take the turn from a job that makes no progress, if another wants it."""
        job = self._current
        if job is None:
            return
        # Progress does not restart the timer, which would cost a timer per report. It is computed when the timer fires.
        left = job.last_progress + self._stall_seconds - asyncio.get_running_loop().time()
        if left > 0:
            self._check_stall_in(left)
        # A silent job keeps the turn as long as no other job wants it.
        elif self._queue or self._resuming:
            log.warning(
                "loading %s makes no progress: other models are loaded beside it", job.request.requirements.name
            )
            self.give_up_turn(job)
        else:
            self._check_stall_in(self._stall_seconds)

    async def _run(self, job: LoadJob[M]) -> None:
        """Do a job's work, and deliver what it gives. The work is cancelled when no request wants it any more."""
        key = job.request.requirements.key
        work = asyncio.ensure_future(self._models.provide(job.request.requirements, job))
        ends: set[asyncio.Future[Any]] = {work, job.unwanted}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                # Ending an unwanted load may take seconds. Other models can be loaded meanwhile.
                self.give_up_turn(job)
                work.cancel()
                await asyncio.wait({work})
            self._deliver(job, work)
        finally:
            # The job leaves the table before `_next`, so that requests which were not served can start another one.
            del self._jobs[key]
            self.give_up_turn(job)
            self._look_again()
            self._reporter.changed()

    def _deliver(self, job: LoadJob[M], work: "asyncio.Future[M]") -> None:
        """Hand a job's model or error to the request that started it and to all that wait for the same."""
        started = job.request
        waiters = [started, *self.waiting_for(started.requirements.key)]
        if work.cancelled() and (job.unwanted.done() or self._closed):
            # Requests that joined after the cancellation stay in the queue and get another job.
            return
        error = LoadFailedError("loading was given up") if work.cancelled() else work.exception()
        if error is not None:
            for each in waiters:
                # A request with other options, a smaller context say, may still succeed, so it stays in the queue.
                if not each.outcome.done() and _shares_error(each.requirements, started.requirements):
                    self._take(each)
                    each.outcome.set_exception(error)
            return
        model = work.result()
        # This lease keeps the model until every waiter has its own. With a keep-alive of 0 it would expire at once.
        self._models.acquire(model, LeaseKind.LOAD_ONLY)
        for each in waiters:
            if not each.outcome.done() and (each is started or self._models.satisfies(model, each.requirements)):
                self._take(each)
                self._models.acquire(model, each.kind)
                each.outcome.set_result(model)
        self._models.release(model, LeaseKind.LOAD_ONLY)


def _shares_error(one: ModelRequirements, other: ModelRequirements) -> bool:
    """Return whether a load that failed for one request would fail for another in the same way."""
    return (one.spec, one.backend) == (other.spec, other.backend)
