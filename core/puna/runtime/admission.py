"""Who is next: a line by priority, and the gate of a model that lets in as many sequences as it runs at once."""

import asyncio
import bisect
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Ticket(Generic[T]):
    """A place in a line."""

    rank: int
    number: int
    item: T = field(compare=False)


class Line(Generic[T]):
    """Who waits: larger priority first, and first come first served among equals."""

    def __init__(self) -> None:
        self._tickets: list[Ticket[T]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[T]:
        return (ticket.item for ticket in self._tickets)

    def join(self, item: T, priority: int = 0) -> Ticket[T]:
        """Let an item wait behind all of its priority."""
        self._count += 1
        ticket = Ticket(-priority, self._count, item)
        bisect.insort(self._tickets, ticket)
        return ticket

    def leave(self, ticket: Ticket[T]) -> None:
        """Give up waiting. A ticket whose turn has come already changes nothing."""
        place = self._place(ticket)
        if place is not None:
            del self._tickets[place]

    def next(self) -> T:
        """Take the first out. IndexError: nobody waits."""
        return self._tickets.pop(0).item

    def position(self, ticket: Ticket[T]) -> int:
        """Return how many are in front; 0 also when its turn has come."""
        return self._place(ticket) or 0

    def _place(self, ticket: Ticket[T]) -> int | None:
        place = bisect.bisect_left(self._tickets, ticket)
        return place if place < len(self._tickets) and self._tickets[place] is ticket else None


@dataclass(frozen=True, slots=True)
class _Waiter:
    turn: asyncio.Future[None]
    report: Callable[[int], None]


class Gate:
    """Places for as many as may run at once; the others wait in line and are told how many are in front of them.

    Those that run count as one: 0 says that the wait is over.
    """

    def __init__(self, places: int) -> None:
        self._free = max(places, 1)
        self._line: Line[_Waiter] = Line()

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
        self._tell()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter.turn.cancelled():
                self._line.leave(ticket)
                self._tell()
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
                self._tell()
                return
        self._free += 1

    def _tell(self) -> None:
        for position, waiter in enumerate(self._line, 1):
            waiter.report(position)
