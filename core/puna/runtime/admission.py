"""The wait queue, and the concurrency limiter that admits as many sequences to a model as it can run at once.

Theory. A WaitQueue is a sorted list of tickets, ordered by falling priority and then by arrival. Joining, leaving,
taking the first and asking for a position take logarithmic time, so a queue may hold thousands of requests. Reporting a
new position to every waiter after each step would take linear time per step, and quadratic time until the queue is
empty. A PositionReporter therefore reports each step to the first NEAR_WAITERS only, and to the others at intervals, a
bounded number in each turn of the event loop.

A ConcurrencyLimiter counts free slots. A release hands its slot directly to the first waiter without making it free in
between, so a newcomer cannot overtake the queue. Everything runs on one event loop; two races remain, both within one
turn of it. A waiter that was cancelled but has not yet run is still in the queue: release skips it. A waiter that was
cancelled after it received the slot gives the slot back.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from sortedcontainers import SortedList

T = TypeVar("T")

NEAR_WAITERS: Final = 64
"""Number of waiters at the front of a queue that get a report after each step."""
FAR_REPORT_SECONDS: Final = 1.0
"""Interval at which the waiters behind them get a report."""
REPORT_SLICE: Final = 256
"""Number of waiters that get a report in one turn of the event loop."""


class Ticket(NamedTuple, Generic[T]):
    """A position in a queue. Tickets compare by rank and number; a queue never issues two equal tickets."""

    rank: int
    number: int
    item: T


class WaitQueue(Generic[T]):
    """A queue ordered by priority, larger first, and first in, first out among equal priorities."""

    def __init__(self) -> None:
        self._tickets: SortedList[Ticket[T]] = SortedList()
        self._count = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[T]:
        return self.slice(0, None)

    def slice(self, start: int, stop: int | None) -> Iterator[T]:
        """Iterate over the items from position `start` up to, but not including, `stop`."""
        return (ticket.item for ticket in self._tickets.islice(start, stop))

    def join(self, item: T, priority: int = 0) -> Ticket[T]:
        """Add an item behind all items of its priority and return its ticket."""
        self._count += 1
        # The number is unique, so comparing two tickets never reaches the items, which cannot be compared.
        ticket = Ticket(-priority, self._count, item)
        self._tickets.add(ticket)
        return ticket

    def add(self, ticket: Ticket[T]) -> None:
        """Add a ticket that another queue issued.

        All tickets added this way must come from the same queue, otherwise two of them can be equal.
        """
        self._tickets.add(ticket)

    def leave(self, ticket: Ticket[T]) -> None:
        """Remove a ticket. Does nothing if the ticket has left the queue already."""
        self._tickets.discard(ticket)

    def first(self) -> Ticket[T]:
        """Return the first ticket without removing it. Raises IndexError if the queue is empty."""
        found: Ticket[T] = self._tickets[0]
        return found

    def next(self) -> T:
        """Remove the first ticket and return its item. Raises IndexError if the queue is empty."""
        ticket: Ticket[T] = self._tickets.pop(0)
        return ticket.item

    def last(self) -> T:
        """Remove the last ticket and return its item. Raises IndexError if the queue is empty."""
        ticket: Ticket[T] = self._tickets.pop()
        return ticket.item

    def position(self, ticket: Ticket[T]) -> int:
        """Return how many tickets are in front of this one; 0 also if this one has left the queue."""
        return self._tickets.bisect_left(ticket) if ticket in self._tickets else 0


class PositionReporter(Generic[T]):
    """Reports to the items of a queue how many others are in front of them.

    `report(item, in_front)` is called with the current position, whether or not it has changed.
    """

    def __init__(self, queue: WaitQueue[T], report: Callable[[T, int], None]) -> None:
        self._queue = queue
        self._report = report
        self._near_report: asyncio.Handle | None = None
        self._far_report: asyncio.Handle | None = None

    def joined(self, ticket: Ticket[T]) -> None:
        """Report its position to a new item at once, and schedule reports to the others."""
        self._report(ticket.item, self._queue.position(ticket))
        self.changed()

    def changed(self) -> None:
        """Schedule reports to all waiters. All changes within one turn of the event loop share one report."""
        if not self._queue:
            return
        loop = asyncio.get_running_loop()
        if self._near_report is None:
            self._near_report = loop.call_soon(self._report_near)
        # The timer is not restarted by later changes, so a busy queue cannot put the report off for ever.
        if self._far_report is None and len(self._queue) > NEAR_WAITERS:
            self._far_report = loop.call_later(FAR_REPORT_SECONDS, self._report_far, NEAR_WAITERS)

    def _report_near(self) -> None:
        self._near_report = None
        self._report_slice(0, NEAR_WAITERS)

    def _report_far(self, start: int) -> None:
        self._far_report = None
        self._report_slice(start, start + REPORT_SLICE)
        # The queue may have changed since the last slice. A waiter that is skipped, or gets two reports, learns its
        # position in the next round.
        if start + REPORT_SLICE < len(self._queue):
            self._far_report = asyncio.get_running_loop().call_soon(self._report_far, start + REPORT_SLICE)

    def _report_slice(self, start: int, stop: int) -> None:
        for position, item in enumerate(self._queue.slice(start, stop), start):
            self._report(item, position)


class SlotWithdrawnError(Exception):
    """The wait for a slot is over without one: its host is gone, or another replica may have a slot earlier."""


@dataclass(slots=True, eq=False)
class _Waiter:
    admitted: asyncio.Future[None]
    """Done once the waiter owns a slot."""
    on_position: Callable[[int], None]
    began: float
    """When the wait began, by the event loop's clock."""
    last_position: int = -1

    def report_position(self, in_front: int) -> None:
        """Report `in_front` + 1 if that has changed. The one stands for all running sequences together."""
        if self.last_position != in_front + 1:
            self.last_position = in_front + 1
            self.on_position(self.last_position)


class ConcurrencyLimiter:
    """Limits how many sequences of a model run at once; the others wait in a queue.

    `slots` is the limit. Each waiter gets reports of how many are in front of it, where all running sequences together
    count as one; a reported position of 0 means that the wait is over.
    """

    def __init__(self, slots: int) -> None:
        self.slots: Final = max(slots, 1)
        self._free = self.slots
        self._queue: WaitQueue[_Waiter] = WaitQueue()
        self._reporter = PositionReporter(self._queue, _Waiter.report_position)

    @property
    def queued(self) -> int:
        """Number of waiting sequences."""
        return len(self._queue)

    def longest_wait(self) -> float:
        """Return how many seconds the first of the queue has waited; 0 if none waits."""
        return asyncio.get_running_loop().time() - self._queue.first().item.began if self._queue else 0.0

    def dismiss(self, count: int) -> None:
        """End the wait of the last `count` waiters with SlotWithdrawnError."""
        for _ in range(min(count, len(self._queue))):
            admitted = self._queue.last().admitted
            # A waiter that was cancelled in this turn of the event loop is still in the queue.
            if not admitted.done():
                admitted.set_exception(SlotWithdrawnError())
        self._reporter.changed()

    @asynccontextmanager
    async def slot(
        self, priority: int = 0, on_position: Callable[[int], None] = lambda _: None
    ) -> AsyncGenerator[None]:
        """Hold a slot for as long as the block lasts, after waiting for one if none is free.

        Raises SlotWithdrawnError if the wait is ended by `dismiss`.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(priority, on_position)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, priority: int, on_position: Callable[[int], None]) -> None:
        # No `await` lies between the check for a free slot and this, so no slot can become free unnoticed.
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), on_position, loop.time())
        ticket = self._queue.join(waiter, priority)
        self._reporter.joined(ticket)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.cancelled():
                self._queue.leave(ticket)
                self._reporter.changed()
            elif waiter.admitted.exception() is None:
                # The waiter was cancelled in the turn of the event loop in which it received a slot.
                self._release()
            raise
        # The caller may still show "queued"; 0 tells it that the wait is over.
        on_position(0)

    def _release(self) -> None:
        """Hand the slot to the first waiter, or make it free if nothing waits."""
        while self._queue:
            admitted = self._queue.next().admitted
            # A waiter that was cancelled in this turn of the event loop is still in the queue.
            if not admitted.done():
                admitted.set_result(None)
                self._reporter.changed()
                return
        self._free += 1
