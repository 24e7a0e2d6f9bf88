import asyncio

import pytest

from puna import events
from puna.backend import SequenceRequest
from puna.diagnostics.content import OVERHEAD, Policy
from puna.diagnostics.records import RequestRecords
from puna.serving.activity import Activity
from puna.serving.answers import Delta


@pytest.fixture
def activity():
    return Activity()


@pytest.fixture
def keep(activity):
    """Makes records with bounds."""
    made = []

    def keep(most=100, most_bytes=1 << 20, policy=None):
        made.append(RequestRecords(activity.entries, policy or Policy(), most=most, most_bytes=most_bytes))
        return made[-1]

    yield keep
    for each in made:
        each.close()


async def ended(activity, text="", model="m"):
    """Run a request with a prompt, as a call does: in a task of its own."""

    async def run():
        with activity.entered(model, "Chat"):
            events.publish(events.SequenceBegan(SequenceRequest(prompt=text), 0))

    await asyncio.create_task(run())


def refuse(method="Chat", service="puna.v1.ChatService"):
    values = {"id": "r", "key": "k", "key_id": "1", "http_route": "", "reason": "RATE_LIMITED", "error": "slow down"}
    events.publish(events.CallRefused(service=service, method=method, **values))


async def test_the_last_requests_are_kept(activity, keep):
    records = keep(most=3)
    for model in "abcde":
        await ended(activity, model=model)
    assert [(each.number, each.model) for each in records.all()] == [(3, "c"), (4, "d"), (5, "e")]


async def test_a_running_request_is_never_dropped(activity, keep):
    records = keep(most=1)
    leave = asyncio.Event()

    async def run():
        with activity.entered("long", "Chat"):
            await leave.wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    for model in "abc":
        await ended(activity, model=model)
    assert [(each.model, each.outcome) for each in records.all()] == [("long", "running"), ("c", "succeeded")]
    leave.set()
    await task
    # It ended last, so it is the last one.
    assert [(each.model, each.outcome) for each in records.all()] == [("long", "succeeded")]


async def test_old_records_make_room_for_the_texts_of_new_ones(activity, keep):
    records = keep(most_bytes=10 * OVERHEAD)
    for _ in range(20):
        await ended(activity, "x" * 2 * OVERHEAD)
        assert sum(each.content.size for each in records.all()) <= 10 * OVERHEAD
    found = records.all()
    assert [each.number for each in found] == [18, 19, 20]
    assert not any(each.content.truncated for each in found)


async def test_texts_are_cut_if_nothing_can_make_room(activity, keep):
    records = keep(most_bytes=2 * OVERHEAD)
    await ended(activity, "x" * 4 * OVERHEAD)
    (record,) = records.all()
    assert record.content.truncated
    assert 0 < len(record.content.sequences[0].prompt) <= OVERHEAD


async def test_refused_calls_take_a_quarter_of_the_places(activity, keep):
    records = keep(most=8)
    for _ in range(8):
        await ended(activity)
    for _ in range(100):
        refuse()
    assert [each.outcome for each in records.all()] == ["succeeded"] * 6 + ["refused"] * 2
    # Others take their places back.
    for _ in range(10):
        await ended(activity)
    assert [each.outcome for each in records.all()].count("succeeded") >= 6
    assert len(records.all()) == 8
    refuse("ListRequests", "puna.v1.ServerService")
    assert len(records.all()) == 8


async def test_a_task_that_outlives_its_request_adds_nothing(activity, keep):
    records = keep()
    leave = asyncio.Event()

    async def late():
        await leave.wait()
        events.publish(events.SequenceBegan(SequenceRequest(prompt="late"), 0))
        events.publish(events.AnswerEnded((Delta(text="late"),)))

    async def run():
        with activity.entered("m", "Chat"):
            return asyncio.create_task(late())

    task = await asyncio.create_task(run())
    leave.set()
    await task
    (record,) = records.all()
    assert (record.content.sequences, record.content.answers) == ([], [])


async def test_nothing_is_kept_after_the_end(activity):
    records = RequestRecords(activity.entries, Policy(), most=1, most_bytes=1)
    records.close()
    await ended(activity, "x")
    assert records.all() == []


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [(ValueError(), "failed"), (asyncio.CancelledError(), "cancelled"), (None, "succeeded")],
)
async def test_the_outcome(activity, keep, failure, outcome):
    records = keep()

    async def run():
        with activity.entered("m", "Chat"):
            if failure is not None:
                raise failure

    await asyncio.wait({task := asyncio.create_task(run())})
    assert task.cancelled() or task.exception() is (failure if outcome == "failed" else None)
    assert [each.outcome for each in records.all()] == [outcome]
