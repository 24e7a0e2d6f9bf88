import asyncio
from contextlib import aclosing

import pytest

from puna.rpc.batches import AHEAD, batches


def of(source):
    return batches(lambda tell: source)


async def counted(number, closed=None):
    try:
        for item in range(number):
            yield item
    finally:
        if closed is not None:
            closed.append(True)


async def test_what_is_ready_travels_together():
    found = []
    async with aclosing(of(counted(5))) as together:
        async for batch in together:
            found.append(batch)
            await asyncio.sleep(0.01)
    assert [item for batch in found for item in batch] == [0, 1, 2, 3, 4]
    assert len(found) < 5


async def test_nothing_waits_to_fill_a_batch():
    gate = asyncio.Event()

    async def halting():
        yield 1
        await gate.wait()
        yield 2

    async with aclosing(of(halting())) as together:
        assert await anext(together) == [1]
        gate.set()
        assert await anext(together) == [2]
        with pytest.raises(StopAsyncIteration):
            await anext(together)


async def test_after_a_pause_all_that_became_ready_in_it_comes_together():
    pauses = []

    def pause(last):
        pauses.append(last)
        # The first list is followed by a pause that only the end of the source can end.
        return 0.0 if last == "begun" else 1000.0

    async def slow():
        for item in ("begun", 1, 2, 3, 4):
            yield item
            await asyncio.sleep(0.001)

    async with asyncio.timeout(30):
        found = [batch async for batch in batches(lambda tell: slow(), pause)]
    assert found == [["begun"], [1], [2, 3, 4]]
    assert pauses[:2] == ["begun", 1]


async def test_a_pause_waits_for_nothing_until_there_is_an_item(monkeypatch):
    loop = asyncio.get_running_loop()
    timers, gate, ended = [], asyncio.Event(), asyncio.Event()
    call_at = loop.call_at

    def counted(when, *rest, **context):
        if when > loop.time() + 100:
            timers.append(when)
        return call_at(when, *rest, **context)

    async def slow():
        yield 1
        await gate.wait()
        yield 2
        await ended.wait()

    async with asyncio.timeout(30), aclosing(batches(lambda tell: slow(), lambda last: 1000.0)) as together:
        monkeypatch.setattr(loop, "call_at", counted)
        assert await anext(together) == [1]
        second = asyncio.create_task(anext(together))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not timers
        gate.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(timers) == 1
        ended.set()
        assert await second == [2]


async def test_an_item_that_comes_when_a_pause_is_nearly_over_does_not_wait(monkeypatch):
    loop = asyncio.get_running_loop()
    passed, clock = 0.0, loop.time

    async def slow():
        nonlocal passed
        for item, seconds in enumerate((0.0, 700.0, 800.0)):
            passed += seconds
            yield item
            await asyncio.sleep(0.001)

    monkeypatch.setattr(loop, "time", lambda: clock() + passed)
    async with asyncio.timeout(3000):
        found = [batch async for batch in batches(lambda tell: slow(), lambda last: 1000.0)]
    # The second item came too soon. By the third the first pause was over, of which its timer told.
    assert found == [[0], [1, 2]]
    passed = 0.0

    async def nearly_as_slow():
        nonlocal passed
        for item in range(3):
            passed += 800.0
            yield item
            await asyncio.sleep(0.001)

    async with asyncio.timeout(3000):
        found = [batch async for batch in batches(lambda tell: nearly_as_slow(), lambda last: 1000.0)]
    assert found == [[0], [1], [2]]


async def test_an_error_ends_a_pause():
    async def failing():
        yield 1
        yield 2
        await asyncio.sleep(0.001)
        raise KeyError("x")

    found = []
    with pytest.raises(KeyError):
        async with asyncio.timeout(30):
            async for batch in batches(lambda tell: failing(), lambda last: 1000.0):
                found += batch
    assert found == [1, 2]


async def test_leaving_during_a_pause_closes_the_source():
    closed = []

    async def halting():
        try:
            yield 1
            await asyncio.sleep(1000)
        finally:
            closed.append(True)

    async def read():
        async with aclosing(batches(lambda tell: halting(), lambda last: 1000.0)) as together:
            async for _ in together:
                pass

    task = asyncio.create_task(read())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


@pytest.mark.parametrize("number", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD])
async def test_all_of_any_number_arrive(number):
    found = [item async for batch in of(counted(number)) for item in batch]
    assert found == list(range(number))


async def test_a_slow_reader_holds_the_source_back():
    drawn = []

    async def endless():
        while True:
            drawn.append(True)
            yield 1

    async with aclosing(of(endless())) as together:
        await anext(together)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(drawn) <= 2 * AHEAD + 2


async def test_an_error_comes_after_the_items_before_it():
    async def failing():
        yield 1
        raise KeyError("x")

    found = []
    with pytest.raises(KeyError):
        async for batch in of(failing()):
            found += batch
    assert found == [1]


async def test_closing_closes_the_source_where_it_waits():
    closed = []

    async def waiting():
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async with aclosing(of(waiting())) as together:
        await anext(together)
    assert closed == [True]


async def test_cancelling_the_reader_closes_the_source():
    closed = []

    async def waiting():
        try:
            await asyncio.sleep(60)
            yield 1
        finally:
            closed.append(True)

    async def read():
        async with aclosing(of(waiting())) as together:
            async for _ in together:
                pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [True]


async def test_news_come_between():
    async def source(tell):
        tell("queued")
        await asyncio.sleep(0)
        yield "piece"

    assert [item async for batch in batches(source) for item in batch] == ["queued", "piece"]


async def test_news_are_dropped_when_the_reader_is_far_behind():
    async def source(tell):
        for _ in range(2 * AHEAD):
            tell("news")
        yield "piece"

    found = [item async for batch in batches(source) for item in batch]
    assert found.count("piece") == 1
    assert len(found) <= AHEAD + 1
