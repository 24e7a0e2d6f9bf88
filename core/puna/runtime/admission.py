"""A queue by priority, and the gate of a model, which lets in as many sequences as the model runs at once.

A line may be thousands long. Joining, leaving, being next and asking for a position take logarithmic time. Telling
every waiter its new position after each step would take linear time, so only the front of a line hears of each step;
the waiters behind it hear at intervals.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from sortedcontainers import SortedList

T = TypeVar("T")

NEAR: Final = 64
"""How many in front of a line hear of each step."""
FAR_SECONDS: Final = 1.0
"""How often those behind them hear of their positions."""
SLICE: Final = 256
"""How many hear in one turn of the event loop."""


class Ticket(NamedTuple, Generic[T]):
    """A place in a line. Tickets compare by rank and number; no two that a line has given out are equal."""

    rank: int
    number: int
    item: T


class Line(Generic[T]):
    """Who waits: larger priority first, and first come first served among equals."""

    def __init__(self) -> None:
        self._tickets: SortedList[Ticket[T]] = SortedList()
        self._count = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[T]:
        return self.part(0, None)

    def part(self, start: int, stop: int | None) -> Iterator[T]:
        """Iterate over those from one position to another."""
        return (ticket.item for ticket in self._tickets.islice(start, stop))

    def join(self, item: T, priority: int = 0) -> Ticket[T]:
        """Let an item wait behind all of its priority."""
        self._count += 1
        ticket = Ticket(-priority, self._count, item)
        self._tickets.add(ticket)
        return ticket

    def add(self, ticket: Ticket[T]) -> None:
        """Add a ticket of another line to this one. A line takes tickets of one other line only."""
        self._tickets.add(ticket)

    def leave(self, ticket: Ticket[T]) -> None:
        """Give up waiting. A ticket whose turn has come already changes nothing."""
        self._tickets.discard(ticket)

    def first(self) -> Ticket[T]:
        """Return the ticket of the first. IndexError: the line is empty."""
        found: Ticket[T] = self._tickets[0]
        return found

    def next(self) -> T:
        """Take the first out. IndexError: the line is empty."""
        ticket: Ticket[T] = self._tickets.pop(0)
        return ticket.item

    def position(self, ticket: Ticket[T]) -> int:
        """Return how many are in front; 0 also when its turn has come."""
        return self._tickets.bisect_left(ticket) if ticket in self._tickets else 0


class Herald(Generic[T]):
    """Tells those in a line their positions as far as they change; `tell` gets an item and how many are in front."""

    def __init__(self, line: Line[T], tell: Callable[[T, int], None]) -> None:
        self._line = line
        self._tell = tell
        self._near: asyncio.Handle | None = None
        self._far: asyncio.Handle | None = None

    def joined(self, ticket: Ticket[T]) -> None:
        """Tell a new one its position, and the others theirs."""
        self._tell(ticket.item, self._line.position(ticket))
        self.changed()

    def changed(self) -> None:
        """Have all waiters told before long. Any number of changes in one turn of the event loop are told at once."""
        if not self._line:
            return
        loop = asyncio.get_running_loop()
        if self._near is None:
            self._near = loop.call_soon(self._tell_near)
        if self._far is None and len(self._line) > NEAR:
            self._far = loop.call_later(FAR_SECONDS, self._tell_far, NEAR)

    def _tell_near(self) -> None:
        self._near = None
        self._tell_part(0, NEAR)

    def _tell_far(self, start: int) -> None:
        self._far = None
        self._tell_part(start, start + SLICE)
        if start + SLICE < len(self._line):
            self._far = asyncio.get_running_loop().call_soon(self._tell_far, start + SLICE)

    def _tell_part(self, start: int, stop: int) -> None:
        for position, item in enumerate(self._line.part(start, stop), start):
            self._tell(item, position)


@dataclass(slots=True, eq=False)
class _Waiter:
    turn: asyncio.Future[None]
    report: Callable[[int], None]
    told: int = -1

    def hear(self, in_front: int) -> None:
        """Report a position, which those that run count in as one."""
        if self.told != in_front + 1:
            self.told = in_front + 1
            self.report(self.told)


class Gate:
    """Places for as many as may run at once; the others wait in line and are told how many are in front of them.

    Those that run count as one: 0 says that the wait is over.
    """

    def __init__(self, places: int) -> None:
        self.places: Final = max(places, 1)
        self._free = self.places
        self._line: Line[_Waiter] = Line()
        self._herald = Herald(self._line, _Waiter.hear)

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._line)

    @asynccontextmanager
    async def place(self, priority: int = 0, report: Callable[[int], None] = lambda _: None) -> AsyncGenerator[None]:
        """Take a place, waiting for it if need be."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(priority, report)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, priority: int, report: Callable[[int], None]) -> None:
        waiter = _Waiter(asyncio.get_running_loop().create_future(), report)
        ticket = self._line.join(waiter, priority)
        self._herald.joined(ticket)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                self._line.leave(ticket)
                self._herald.changed()
            else:  # its turn came in the very moment
                self._release()
            raise
        report(0)

    def _release(self) -> None:
        """Hand the place to the next in line."""
        while self._line:
            turn = self._line.next().turn
            if not turn.done():  # else cancelled in this very turn of the loop, and about to leave the line itself
                turn.set_result(None)
                self._herald.changed()
                return
        self._free += 1
