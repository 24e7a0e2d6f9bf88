import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.runtime.admission import ConcurrencyLimiter, WaitQueue


@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans())))
def test_larger_priority_first_then_first_come(arrivals):
    line = WaitQueue()
    tickets = [line.join(number, priority) for number, (priority, _) in enumerate(arrivals)]
    for ticket, (_, leaves) in zip(tickets, arrivals, strict=True):
        if leaves:
            line.leave(ticket)
            line.leave(ticket)
    expected = [n for n in sorted(range(len(arrivals)), key=lambda n: -arrivals[n][0]) if not arrivals[n][1]]
    assert list(line) == expected
    assert [line.position(tickets[number]) for number in expected] == list(range(len(expected)))
    assert [line.next() for _ in expected] == expected
    assert len(line) == 0


def test_nobody_is_next_in_an_empty_line():
    with pytest.raises(IndexError):
        WaitQueue().next()


class Guests:
    """Tasks that go through a gate and stay until told to leave."""

    def __init__(self, limiter):
        self.limiter = limiter
        self.order = []
        self.positions = {}
        self.leave = {}
        self.tasks = {}

    async def send(self, name, priority=0):
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._go(name, priority))
        await asyncio.sleep(0)

    async def _go(self, name, priority):
        async with self.limiter.slot(priority, lambda position: self.positions.setdefault(name, []).append(position)):
            self.order.append(name)
            await self.leave[name].wait()

    async def dismiss(self, name):
        self.leave[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)


@pytest.fixture
async def guests():
    guests = Guests(ConcurrencyLimiter(2))
    yield guests
    for task in guests.tasks.values():
        task.cancel()
    await asyncio.gather(*guests.tasks.values(), return_exceptions=True)
    assert guests.limiter.queued == 0


async def test_as_many_as_there_are_places_go_at_once(guests):
    for name in "abc":
        await guests.send(name)
    assert guests.order == ["a", "b"]
    assert guests.limiter.queued == 1


async def test_the_next_in_line_takes_the_place(guests):
    for name in "abcd":
        await guests.send(name)
    await guests.send("urgent", priority=1)
    await guests.dismiss("b")
    assert guests.order == ["a", "b", "urgent"]
    await guests.dismiss("urgent")
    assert guests.order == ["a", "b", "urgent", "c"]


async def test_those_who_wait_hear_how_many_are_in_front(guests):
    for name in "abcd":
        await guests.send(name)
    await guests.send("urgent", priority=1)
    await guests.dismiss("a")
    await guests.dismiss("b")
    assert guests.positions == {"c": [1, 2, 1, 0], "d": [2, 3, 2, 1], "urgent": [1, 0]}


async def test_one_that_gives_up_waiting_leaves_the_line(guests):
    for name in "abcd":
        await guests.send(name)
    guests.tasks["c"].cancel()
    await asyncio.sleep(0)
    assert guests.limiter.queued == 1
    await guests.dismiss("a")
    assert guests.order == ["a", "b", "d"]


async def test_a_place_given_to_one_that_just_gave_up_is_not_lost(guests):
    for name in "abcd":
        await guests.send(name)
    guests.leave["a"].set()
    await asyncio.sleep(0)  # the place is c's now, but c has not run yet
    guests.tasks["c"].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert guests.order[2:] in (["d"], ["c"])
    await guests.dismiss("b")
    await asyncio.sleep(0)
    assert "d" in guests.order


async def test_those_who_all_give_up_at_once_leave_every_place_free(guests):
    for name in "abcde":
        await guests.send(name)
    for name in "abcde":
        guests.tasks[name].cancel()
    await asyncio.wait(guests.tasks.values())
    assert guests.limiter.queued == 0
    async with asyncio.timeout(1), guests.limiter.slot(), guests.limiter.slot():
        pass


async def test_there_is_always_one_place():
    async with asyncio.timeout(1), ConcurrencyLimiter(0).slot():
        pass
