import asyncio

import pytest

from puna.spsc_queue import SpscQueue


async def settled(task):
    """Let a task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


async def test_items_come_in_order():
    queue = SpscQueue()
    assert all(queue.put_nowait(each) for each in range(1000))
    assert [await queue.get() for _ in range(1000)] == list(range(1000))
    assert len(queue) == 0
    with pytest.raises(IndexError):
        queue.get_nowait()


async def test_all_items_are_taken_at_once_and_make_room():
    queue = SpscQueue(2)
    assert queue.first() is None
    assert queue.take_all() == []
    reading = asyncio.create_task(queue.get_all())
    assert not await settled(reading)
    queue.put_nowait(1)
    queue.put_nowait(2)
    assert queue.first() == 1
    writing = asyncio.create_task(queue.put(3))
    assert await settled(reading)
    assert await reading == [1, 2]
    assert await settled(writing)
    assert queue.take_all() == [3]
    assert len(queue) == 0


async def test_a_reader_waits_for_an_item():
    queue = SpscQueue()
    reading = asyncio.create_task(queue.get())
    assert not await settled(reading)
    queue.put_nowait("a")
    queue.put_nowait("b")
    assert (await reading, await queue.get()) == ("a", "b")


async def test_a_writer_waits_for_room():
    queue = SpscQueue(2)
    await queue.put(1)
    await queue.put(2)
    assert not queue.put_nowait("dropped")
    writing = asyncio.create_task(queue.put(3))
    assert not await settled(writing)
    assert await queue.get() == 1
    assert await settled(writing)
    assert [await queue.get(), await queue.get()] == [2, 3]


async def test_an_item_that_takes_the_room_first_makes_the_writer_wait_on():
    queue = SpscQueue(1)
    queue.put_nowait(1)
    writing = asyncio.create_task(queue.put(3))
    assert not await settled(writing)
    assert queue.get_nowait() == 1
    assert queue.put_nowait(2)
    assert not await settled(writing)
    assert await queue.get() == 2
    assert await queue.get() == 3


@pytest.mark.parametrize("filled", [False, True])
async def test_a_cancelled_reader_takes_nothing(filled):
    queue = SpscQueue()
    reading = asyncio.create_task(queue.get())
    assert not await settled(reading)
    if filled:
        queue.put_nowait("a")  # the cancellation comes after the item and before the reader's turn
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    if not filled:
        queue.put_nowait("a")
    assert await queue.get() == "a"


async def test_a_cancelled_writer_leaves_nothing():
    queue = SpscQueue(1)
    queue.put_nowait(1)
    writing = asyncio.create_task(queue.put(2))
    assert not await settled(writing)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await queue.get() == 1
    assert len(queue) == 0
    await queue.put(3)
    assert await queue.get() == 3
