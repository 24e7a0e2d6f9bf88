import asyncio

import pytest

from puna.errors import ServerEndingError
from puna.serving.activity import Activity
from puna.serving.answers import Progress


@pytest.fixture
def activity():
    return Activity()


def enter(activity, model="m", seconds=60.0):
    """Start a request that lasts some seconds; return its task and, once it runs, its entry."""
    entries = asyncio.Queue()

    async def request():
        with activity.entered(model, "Chat") as entry:
            entries.put_nowait(entry)
            await asyncio.sleep(seconds)

    return asyncio.ensure_future(request()), entries.get()


async def test_requests_are_listed_while_they_last_oldest_first(activity):
    first, one = enter(activity)
    second, two = enter(activity, "other")
    assert [await one, await two] == activity.entries()
    assert [each.model for each in activity.entries("other")] == ["other"]
    for task in (first, second):
        task.cancel()
    await asyncio.wait({first, second})
    assert activity.entries() == []


async def test_cancelling_names_the_reason_and_works_once(activity):
    task, entered = enter(activity)
    entry = await entered
    assert activity.cancel(entry.id)
    assert not activity.cancel(entry.id)
    await asyncio.wait({task})
    assert task.cancelled()
    assert (entry.cancelled, entry.ended) == (True, False)
    assert not activity.cancel("nonsense")


async def test_draining_lets_requests_finish(activity):
    task, entered = enter(activity, seconds=0.02)
    entry = await entered
    await activity.drain(5.0)
    assert task.done()
    assert not entry.ended


async def test_draining_cancels_what_takes_too_long_and_refuses_new_requests(activity):
    task, entered = enter(activity)
    entry = await entered
    await activity.drain(0.01)
    assert task.cancelled()
    assert entry.ended
    with pytest.raises(ServerEndingError), activity.entered("m", "Chat"):
        pass


async def test_requests_are_taken_during_the_delay_of_a_drain(activity):
    draining = asyncio.ensure_future(activity.drain(0.01, 0.2))
    await activity.pause(10)
    assert (activity.leaving, activity.ending) == (True, False)
    with activity.entered("m", "Chat"):
        pass
    await activity.pause(10)
    assert activity.ending
    with pytest.raises(ServerEndingError), activity.entered("m", "Chat"):
        pass
    await draining


async def test_only_a_queued_request_has_a_position(activity):
    task, entered = enter(activity)
    entry = await entered
    entry.on_progress(Progress(phase="queued", position=3))
    assert entry.queue_position == 3
    # All that wait for a load are told of it, and keep their order.
    entry.on_progress(Progress(phase="loading", fraction=0.5))
    assert entry.queue_position == 3
    entry.on_progress(Progress(phase="queued", position=0))
    assert entry.queue_position == 0
    task.cancel()
