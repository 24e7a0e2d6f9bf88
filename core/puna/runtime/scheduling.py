"""Whose model is loaded next: the queue of requests that need a load, and the turns of the models they wait for.

Each model that is waited for has one piece of work at a time: making room, loading, or ending an old instance first.
The works of several models take turns, since they share the machine's memory, and the most urgent request decides whose
is next. A model keeps its turn only as long as it gets on. One that must wait for others, for the end of another's
answer say, steps aside meanwhile; one whose load shows no progress loses its turn after some seconds. So no model can
keep the others from being loaded, whatever its host does.

Requests for the same model share its work, and its error.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from puna.errors import LoadFailedError
from puna.runtime.admission import Herald, Line, Ticket
from puna.runtime.requirements import Loading, Queued, Report, Use, Wanted

log = logging.getLogger(__name__)

R = TypeVar("R")
W = TypeVar("W")

LOADED: Final = Loading(1.0)
NEWS_SECONDS: Final = 0.25
"""Seconds between two reports of a load to the requests that wait beside the first."""


@dataclass(slots=True, eq=False)
class Pending(Generic[R]):
    """A request in the queue. Its future is done once it has its model, or has left."""

    want: Wanted
    use: Use
    report: Report
    given: asyncio.Future[R]
    told: int = -1
    ticket: Ticket["Pending[R]"] | None = None
    """In the line of all, and in that of its model."""

    def hear(self, in_front: int) -> None:
        """Report a position if it is news."""
        if self.told != in_front:
            self.told = in_front
            self.report(Queued(in_front))


class Turn(Generic[R]):
    """The work for one model, as it sees the turns."""

    def __init__(self, scheduler: "Scheduler[R]", pending: Pending[R]) -> None:
        self.scheduler = scheduler
        self.pending = pending
        self.alive = 0.0
        """When it last got on, by the event loop's clock."""
        self.abandoned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once no request waits for the model any more."""
        self._told = -math.inf

    def abandon(self) -> None:
        """Have the work given up."""
        if not self.abandoned.done():
            self.abandoned.set_result(None)

    async def aside(self, waiting: Awaitable[W]) -> W:
        """Wait for something while others have their turns, then for a turn again."""
        self.scheduler.step_aside(self)
        result = await waiting
        await self.scheduler.return_to(self)
        return result

    def report(self, news: Queued | Loading) -> None:
        """Tell the waiting requests how far the model is, which also shows that it gets on."""
        now = self.alive = asyncio.get_running_loop().time()
        self.pending.report(news)
        if now - self._told >= NEWS_SECONDS or news == LOADED:
            self._told = now
            for other in self.scheduler.others(self.pending.want.key):
                other.report(news)


class Models(Protocol[R]):
    """The models that a scheduler hands out."""

    async def provide(self, want: Wanted, turn: Turn[R]) -> R:
        """Make room and load, and return a model that fits."""

    def fits(self, made: R, want: Wanted) -> bool:
        """Say whether a model does for another request."""

    def lend(self, made: R, use: Use) -> None:
        """Keep a model for a request."""

    def give_back(self, made: R, use: Use) -> None:
        """End that."""


class Scheduler(Generic[R]):
    """Gives requests their models. `patience`: seconds that a work may keep its turn without getting on."""

    def __init__(self, models: Models[R], patience: float) -> None:
        self._models = models
        self._patience = patience
        self._line: Line[Pending[R]] = Line()
        self._by_model: dict[str, Line[Pending[R]]] = {}
        self._herald = Herald(self._line, self._tell)
        self._turns: dict[str, Turn[R]] = {}
        """The works under way, by model."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._current: Turn[R] | None = None
        self._timer: asyncio.TimerHandle | None = None
        """When to look whether it gets on."""
        self._returning: deque[tuple[Turn[R], asyncio.Future[None]]] = deque()
        self._closed = False

    async def close(self) -> None:
        """End every work and cancel what waits."""
        self._closed = True
        for turn in self._turns.values():
            turn.pending.given.cancel()
            turn.abandon()
        if self._tasks:
            await asyncio.wait(self._tasks)
        while self._line:
            self._line.next().given.cancel()

    @property
    def waiting(self) -> int:
        """The number of waiting requests, with the requests that have a turn."""
        return len(self._line) + len(self._turns)

    def others(self, model: str) -> list[Pending[R]]:
        """Return who waits for a model beside the one whose work is done."""
        return list(self._by_model.get(model, ()))

    async def wait(self, want: Wanted, use: Use, priority: int, report: Report) -> R:
        """Wait for a model, which is lent when this returns. Raises what `provide` does."""
        pending: Pending[R] = Pending(want, use, report, asyncio.get_running_loop().create_future())
        ticket = pending.ticket = self._line.join(pending, priority)
        self._by_model.setdefault(want.key, Line()).add(ticket)
        self._herald.joined(ticket)
        self._next()
        try:
            return await pending.given
        except asyncio.CancelledError:
            if pending.given.cancelled():
                self._leave(pending)
            elif pending.given.exception() is None:  # it came in the very moment
                self._models.give_back(pending.given.result(), use)
            raise

    # ---- the queue ---------------------------------------------------------------------------------------------------

    def _tell(self, pending: Pending[R], in_front: int) -> None:
        pending.hear(in_front + bool(self._turns))

    def _take(self, pending: Pending[R]) -> None:
        """Take a request out of the queue. Nothing happens if it is not there."""
        key, ticket = pending.want.key, pending.ticket
        if ticket is None:
            return
        pending.ticket = None
        self._line.leave(ticket)
        if (line := self._by_model.get(key)) is not None:
            line.leave(ticket)
            if not line:
                del self._by_model[key]

    def _leave(self, pending: Pending[R]) -> None:
        self._take(pending)
        self._herald.changed()
        key = pending.want.key
        turn = self._turns.get(key)
        if turn and turn.pending.given.done() and key not in self._by_model:
            turn.abandon()

    def _first(self) -> Pending[R] | None:
        """Return the first request whose model has no work under way."""
        heads = [line.first() for key, line in self._by_model.items() if key not in self._turns]
        return min(heads).item if heads else None

    # ---- turns -------------------------------------------------------------------------------------------------------

    def step_aside(self, turn: Turn[R]) -> None:
        """Give up the turn, if it is this one's."""
        if self._current is turn:
            self._current = None
            if self._timer is not None:
                self._timer.cancel()
            self._next()

    async def return_to(self, turn: Turn[R]) -> None:
        """Wait for the turn."""
        if self._current is turn:
            return
        again: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append((turn, again))
        self._next()
        await again

    def _next(self) -> None:
        """Give the turn away if it is free: first to the works that stepped aside, then to the most urgent request."""
        if self._current is not None or self._closed:
            return
        while self._returning:
            turn, again = self._returning.popleft()
            if not again.done():
                self._begin(turn)
                again.set_result(None)
                return
        if (pending := self._first()) is not None:
            self._take(pending)
            turn = self._turns[pending.want.key] = Turn(self, pending)
            self._begin(turn)
            self._herald.changed()
            task = asyncio.create_task(self._serve(turn))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _begin(self, turn: Turn[R]) -> None:
        self._current = turn
        turn.alive = asyncio.get_running_loop().time()
        self._look_later(self._patience)

    def _look_later(self, seconds: float) -> None:
        if math.isfinite(seconds):
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Take the turn from a work that does not get on, if another wants it."""
        turn = self._current
        if turn is None:
            return
        left = turn.alive + self._patience - asyncio.get_running_loop().time()
        if left > 0:
            self._look_later(left)
        elif self._line or self._returning:
            log.warning("%s does not get on: others are served beside it", turn.pending.want.name)
            self.step_aside(turn)
        else:
            self._look_later(self._patience)

    async def _serve(self, turn: Turn[R]) -> None:
        """Do the work for a request, and hand out what it gives, as long as a request waits for it."""
        key = turn.pending.want.key
        work = asyncio.ensure_future(self._models.provide(turn.pending.want, turn))
        ends: set[asyncio.Future[Any]] = {work, turn.abandoned}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.step_aside(turn)  # the end of an unwanted load may take its time
                work.cancel()
                await asyncio.wait({work})
            self._hand_out(turn, work)
        finally:
            del self._turns[key]
            self.step_aside(turn)
            self._next()
            self._herald.changed()

    def _hand_out(self, turn: Turn[R], work: "asyncio.Future[R]") -> None:
        """Give what a work came to to its request, and to all that wait for the same."""
        head = turn.pending
        alike = [head, *self.others(head.want.key)]
        if work.cancelled() and (turn.abandoned.done() or self._closed):
            return  # requests that have come since begin anew
        error = LoadFailedError("loading was given up") if work.cancelled() else work.exception()
        if error is not None:
            for each in alike:
                if not each.given.done() and _same(each.want, head.want):
                    self._take(each)
                    each.given.set_exception(error)
            return
        made = work.result()
        self._models.lend(made, Use.NOTHING)
        for each in alike:
            if not each.given.done() and (each is head or self._models.fits(made, each.want)):
                self._take(each)
                self._models.lend(made, each.use)
                each.given.set_result(made)
        self._models.give_back(made, Use.NOTHING)


def _same(one: Wanted, other: Wanted) -> bool:
    """Say whether two requests want the same of a model that cannot be loaded."""
    return (one.spec, one.backend) == (other.spec, other.backend)
