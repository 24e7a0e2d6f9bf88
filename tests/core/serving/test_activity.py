import asyncio

import pytest

from puna import events
from puna.auth.caller import Caller
from puna.auth.caller import enter as enter_caller
from puna.auth.keys import ApiKey
from puna.backend.metadata import enter_request
from puna.errors import ServerEndingError
from puna.serving.activity import Activity
from puna.serving.answers import ChoiceDone, Delta, Done, Progress


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
    assert (entry.queue_position, entry.phase) == (3, "loading")
    entry.on_progress(Progress(phase="loading", fraction=1.0))
    assert (entry.queue_position, entry.phase) == (3, "queued")
    entry.on_progress(Progress(phase="queued", position=0))
    assert (entry.queue_position, entry.phase) == (0, "prefill")
    task.cancel()


class Heard:
    """Work in the background that remembers what it was told."""

    def __init__(self):
        self.told = []

    def on_begin(self):
        self.told.append("begin")

    def on_wait(self):
        self.told.append("wait")

    def on_idle(self):
        self.told.append("idle")


async def test_the_background_hears_of_requests_in_front_of_it(activity):
    heard = activity.background = Heard()
    with activity.entered("m", "Chat") as entry:
        assert activity.busy
        entry.on_progress(Progress(phase="prefill"))
        assert heard.told == ["begin"]
        entry.on_progress(Progress(phase="queued", position=0))
        entry.on_progress(Progress(phase="loading", fraction=0.0))
        with activity.entered("m", "Embed"):
            pass
        assert "idle" not in heard.told
    assert not activity.busy
    assert heard.told == ["begin", "wait", "wait", "begin", "idle"]


async def test_the_background_gives_way_neither_to_itself_nor_to_transfers(activity):
    heard = activity.background = Heard()

    async def background():
        enter_caller(Caller(background=True))
        with activity.entered("m", "Chat") as entry:
            entry.on_progress(Progress(phase="queued", position=3))
            assert not activity.busy

    await asyncio.create_task(background())
    with activity.entered("m", "PullModel"):
        assert not activity.busy
    assert heard.told == []


async def test_the_background_hears_that_the_server_is_leaving(activity):
    heard = activity.background = Heard()
    await activity.drain(1.0)
    assert heard.told == ["idle"]
    assert activity.leaving


async def test_the_beginning_and_the_end_of_a_request_are_told_in_its_own_context(activity):
    heard = []

    def began(event):
        heard.append(event)
        enter_request({"traceparent": "00-1-2-01"})

    kinds = {events.RequestBegan: began, events.RequestEnded: heard.append, events.AnswerEnded: heard.append}
    stops = [events.subscribe(kind, listener) for kind, listener in kinds.items()]
    parts, last = [Delta(text="a"), Delta(text="b")], Delta(text="c")
    enter_caller(Caller(key=ApiKey(id="k1", name="shop", digest=""), background=True, batch="batch_1"))
    try:
        with activity.entered("m", "Chat") as entry:
            entry.on_output(2)
            ends = tuple(ChoiceDone(choice=choice, reason=reason) for choice, reason in enumerate(("stop", "length")))
            done = Done(reason="stop", delta=last, choices=ends)
            entry.on_text((*parts, done))
            entry.on_done(done)
    finally:
        enter_caller(Caller())
        for stop in stops:
            stop()
    first, text, end = heard
    assert (first.id, first.model, first.method, first.batch) == (entry.id, "m", "Chat", "batch_1")
    assert (first.key, first.key_id, first.start_ns) == ("shop", "k1", entry.start_ns)
    assert text.deltas == (*parts, last)
    assert (end.id, end.reasons, end.traceparent) == (entry.id, ("stop", "length"), "00-1-2-01")
    assert 0 < end.first_token_seconds <= end.seconds


async def test_no_text_of_an_answer_is_kept_without_a_listener(activity):
    with activity.entered("m", "Chat") as entry:
        entry.on_text((Delta(text="a"),))
        assert entry.deltas is None
