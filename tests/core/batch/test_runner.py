import asyncio
from contextlib import asynccontextmanager

import pytest
from tests.core.batch.conftest import make, results, until

from puna.auth.caller import Caller, enter
from puna.auth.errors import QuotaExceededError, UnauthenticatedError
from puna.batch import batch as states
from puna.batch import runner
from puna.batch.core import Batches
from puna.batch.runner import LaterError, Outcome, Performer
from puna.batch.work import ATTEMPTS
from puna.serving.activity import Activity
from puna.serving.answers import Progress


class Played(Performer):
    """Runs requests as a test says: each waits for its gate, or goes through while all are open."""

    def __init__(self):
        self.began = []
        self.cancelled = []
        self.open = asyncio.Event()
        self.open.set()
        self.plays = {}
        self.revoked = set()

    async def run(self, batch, number, request):
        self.began.append(request.decode())
        enter(Caller(background=True))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.decode())
            raise
        plays = self.plays.get(request.decode(), [])
        play = plays.pop(0) if plays else Outcome(b"answer to " + request, failed=False)
        if isinstance(play, Exception):
            raise play
        return play

    def check_owner(self, batch):
        if batch.config.owner in self.revoked:
            raise UnauthenticatedError("revoked")

    def expired(self, batch, number, request):
        return b"expired " + request

    def refused(self, batch, number, request, error):
        return b"refused " + request


@pytest.fixture
async def performer():
    return Played()


@pytest.fixture
def activity():
    return Activity()


@asynccontextmanager
async def running(found, activity, performer):
    async with found.running(activity, performer, settle_seconds=0):
        yield


async def settled():
    """Let everything happen that can happen without further news."""
    for _ in range(10):
        await asyncio.sleep(0.01)


@asynccontextmanager
async def request(activity, method="Chat"):
    """A request of a client, in a task of its own. Yields its entry."""
    entered, leave, made = asyncio.Event(), asyncio.Event(), []

    async def serve():
        with activity.entered("m", method) as entry:
            made.append(entry)
            entered.set()
            await leave.wait()

    task = asyncio.create_task(serve())
    await entered.wait()
    try:
        yield made[0]
    finally:
        leave.set()
        await task


async def test_an_idle_server_runs_a_batch_to_its_end(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a", "b", "c")
    performer.plays["b"] = [Outcome(b"bad", failed=True)]
    async with running(found, activity, performer):
        await until(lambda: new.ended)
    assert new.progress.state == states.DONE
    assert (new.progress.completed, new.progress.failed) == (2, 1)
    assert sorted(each[1:] for each in results(found, new)) == [(1, b"answer to a"), (2, b"bad"), (3, b"answer to c")]
    assert 0 < new.progress.start_ns <= new.progress.end_ns


async def test_nothing_starts_while_a_request_is_under_way(open_batches, activity, performer):
    found = open_batches()
    async with running(found, activity, performer):
        async with request(activity):
            new = make(found, "a")
            found.changed()
            await settled()
            assert performer.began == []
        await until(lambda: new.ended)


async def test_nothing_starts_until_the_server_has_been_idle_for_a_while(open_batches, activity, performer):
    found = open_batches()
    async with found.running(activity, performer, settle_seconds=3600):
        async with request(activity):
            pass
        make(found, "a")
        found.changed()
        await settled()
        assert performer.began == []


async def test_a_transfer_keeps_no_batch_waiting(open_batches, activity, performer):
    found = open_batches()
    async with running(found, activity, performer), request(activity, "PullModel"):
        new = make(found, "a")
        found.changed()
        await until(lambda: new.ended)


async def test_requests_that_run_go_on_beside_a_request_that_waits_for_nothing(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a")
    performer.open.clear()
    async with running(found, activity, performer):
        await until(lambda: performer.began)
        async with request(activity):
            await settled()
            assert performer.cancelled == []
            performer.open.set()
            await until(lambda: new.ended)


@pytest.mark.parametrize("phase", [Progress(phase="queued", position=1), Progress(phase="loading", fraction=0.5)])
async def test_a_request_that_waits_interrupts_them_all(open_batches, activity, performer, phase):
    found = open_batches()
    new = make(found, "a", "b")
    performer.open.clear()
    async with running(found, activity, performer):
        await until(lambda: len(performer.began) == 2)
        async with request(activity) as entry:
            entry.on_progress(phase)
            await until(lambda: sorted(performer.cancelled) == ["a", "b"])
            performer.open.set()
            await settled()
            assert results(found, new) == []  # none starts again while the request is there
        await until(lambda: new.ended)
    # They were run twice, and each has one answer.
    assert sorted(performer.began) == ["a", "a", "b", "b"]
    assert sorted(each[1] for each in results(found, new)) == [1, 2]


async def test_calls_without_a_slot_are_interrupted_by_any_request(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a", alone=True)
    performer.open.clear()
    async with running(found, activity, performer):
        await until(lambda: performer.began)
        async with request(activity):
            await until(lambda: performer.cancelled)
        performer.open.set()
        await until(lambda: new.ended)


async def test_a_result_that_is_being_stored_is_not_interrupted(open_batches, activity, performer, monkeypatch):
    found = open_batches()
    new = make(found, "a")
    storing, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    add = found.store.add_result

    def slow(*args, **more):
        loop.call_soon_threadsafe(storing.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        return add(*args, **more)

    monkeypatch.setattr(found.store, "add_result", slow)
    async with running(found, activity, performer):
        await storing.wait()
        async with request(activity) as entry:
            entry.on_progress(Progress(phase="queued", position=1))
            go_on.set()
            await until(lambda: new.ended)
    assert performer.began == ["a"]


async def test_the_end_of_the_server_interrupts_and_loses_nothing(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a", "b")
    performer.open.clear()
    async with running(found, activity, performer):
        await until(lambda: len(performer.began) == 2)
        await activity.drain(1)
        await until(lambda: len(performer.cancelled) == 2)
        await settled()
        assert len(performer.began) == 2
    again, activity = open_batches(), Activity()
    performer.open.set()
    async with running(again, activity, performer):
        await until(lambda: again.store.get("", new.id).ended)


async def test_a_cancelled_batch_keeps_its_answers(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a", "b", "c")
    async with running(found, activity, performer):
        await until(lambda: new.progress.completed >= 1)
        performer.open.clear()
        await found.cancel(new)
        await settled()
    assert new.ended
    assert len(results(found, new)) == new.progress.completed


async def test_cancelling_stops_what_runs(open_batches, activity, performer):
    found = open_batches()
    new, other = make(found, "a"), make(found, "b")
    performer.open.clear()
    async with running(found, activity, performer):
        await until(lambda: len(performer.began) == 2)
        await found.cancel(new)
        await until(lambda: performer.cancelled == ["a"])
        performer.open.set()
        await until(lambda: other.ended)
    assert new.progress.state == states.CANCELLED
    assert results(found, new) == []


async def test_a_deleted_batch_stops(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a")
    performer.open.clear()
    async with running(found, activity, performer):
        await until(lambda: performer.began)
        await found.delete(new)
        await until(lambda: performer.cancelled)
        performer.open.set()
        await settled()
    assert not new.folder.exists()
    assert found.store.listed("") == []


async def test_a_revoked_key_ends_its_batches(open_batches, activity, performer):
    found = open_batches()
    new, other = make(found, "a", owner="gone"), make(found, "b", owner="stays")
    performer.revoked.add("gone")
    async with running(found, activity, performer):
        await until(lambda: new.ended and other.ended)
    assert (new.progress.state, other.progress.state) == (states.REVOKED, states.DONE)
    assert performer.began == ["b"]


async def test_a_key_that_is_revoked_meanwhile_ends_its_batches(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a", owner="gone")
    performer.plays["a"] = [UnauthenticatedError("revoked")]
    async with running(found, activity, performer):
        await until(lambda: new.ended)
    assert new.progress.state == states.REVOKED


async def test_an_expired_batch_has_an_error_for_each_request_without_a_result(
    open_batches, activity, performer, clock
):
    found = open_batches()
    new = make(found, *(f"r{number}" for number in range(600)), window=10)
    found.store.add_result(new, 3, b"answer", failed=False)
    clock.pass_(11)
    async with running(found, activity, performer):
        await until(lambda: new.ended)
    assert new.progress.state == states.EXPIRED
    assert (new.progress.completed, new.progress.failed) == (1, 599)
    assert results(found, new)[1] == (2, 1, b"expired r0")
    assert performer.began == []


async def test_a_batch_waits_for_the_quota_of_its_key_and_others_do_not(open_batches, activity, performer):
    found = open_batches()
    new, other = make(found, "a", owner="one"), make(found, "b", owner="two")
    performer.plays["a"] = [QuotaExceededError(5, 0.05)]
    async with running(found, activity, performer):
        await until(lambda: new.ended and other.ended)
    assert performer.began.count("a") == 2
    assert new.progress.completed == 1


async def test_what_cannot_run_now_is_put_back(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a")
    performer.plays["a"] = [LaterError(), LaterError(), LaterError(), LaterError()]
    async with running(found, activity, performer):
        await until(lambda: new.ended)
    assert results(found, new) == [(1, 1, b"answer to a")]


async def test_a_backend_that_crashes_is_tried_some_times(open_batches, activity, performer):
    found = open_batches()
    new = make(found, "a")
    performer.plays["a"] = [Outcome(b"crash", failed=True, again=True)] * 10
    async with running(found, activity, performer):
        await until(lambda: new.ended)
    assert len(performer.began) == ATTEMPTS
    assert results(found, new) == [(1, 1, b"crash")]


async def test_an_answer_that_is_too_large_becomes_an_error(open_batches, activity, performer):
    found = open_batches(max_stored_bytes=200)
    new = make(found, "a")
    performer.plays["a"] = [Outcome(bytes(1000), failed=False)]
    async with running(found, activity, performer):
        await until(lambda: new.ended)
    assert results(found, new) == [(1, 1, b"refused a")]


async def test_a_disk_that_fails_loses_no_request(open_batches, activity, performer, monkeypatch, caplog):
    found = open_batches()
    new = make(found, "a secret prompt")
    monkeypatch.setattr(runner, "CLEAN_SECONDS", 0.05)
    append, failures = runner.BatchStore.add_results, [OSError(28, "No space left on device")] * 2

    def failing(*args, **more):
        if failures:
            raise failures.pop()
        return append(*args, **more)

    monkeypatch.setattr(runner.BatchStore, "add_results", failing)
    async with running(found, activity, performer):
        await until(lambda: new.ended)
    assert len(performer.began) == 3
    assert "batches pause" in caplog.text
    assert "secret" not in caplog.text


async def test_a_bounded_number_runs_at_once(open_batches, activity, performer):
    found = open_batches(max_batch_concurrency=2)
    make(found, *"abcde")
    performer.open.clear()
    async with running(found, activity, performer):
        await until(lambda: len(performer.began) == 2)
        await settled()
        assert performer.began == ["a", "b"]


async def test_keys_take_turns(open_batches, activity, performer, monkeypatch):
    monkeypatch.setattr(runner, "TURN", 2)
    found = open_batches(max_batch_concurrency=1)
    one = make(found, *(f"x{number}" for number in range(6)), owner="one")
    two = make(found, *(f"y{number}" for number in range(3)), owner="two")
    async with running(found, activity, performer):
        await until(lambda: one.ended and two.ended)
    order = [each[0] for each in performer.began]
    # The second key does not wait for the end of the first one's batch.
    assert order.index("y") < 4
    assert "yyy" not in "".join(order[:6])


async def test_a_restart_goes_on_where_it_was(open_batches, activity, performer):
    found = open_batches(max_batch_concurrency=1)
    new = make(found, *"abcdef")
    async with running(found, activity, performer):
        await until(lambda: new.progress.completed >= 2)
    kept = results(found, new)
    again = open_batches()
    async with running(again, Activity(), performer):
        await until(lambda: again.store.get("", new.id).ended)
    seen = results(again, again.store.get("", new.id))
    assert seen[: len(kept)] == kept
    assert sorted(each[1] for each in seen) == [1, 2, 3, 4, 5, 6]


async def test_a_folder_that_another_server_uses_does_not_stop_the_server(tmp_path, open_batches, activity, performer):
    make(open_batches(), "a")
    other = Batches(tmp_path / "batches")
    async with running(other, activity, performer):
        with pytest.raises(OSError, match="another server"):
            await other.check()
