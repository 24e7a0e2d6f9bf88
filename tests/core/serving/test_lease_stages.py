import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from puna import events
from puna.errors import QueueFullError
from puna.runtime.requirements import Loading, Queued
from puna.serving.lease_stages import LeaseStages


@pytest.fixture
def heard():
    found = []
    stop = events.subscribe(events.StageEnded, found.append)
    yield found
    stop()


async def observed(*progress, failure=None):
    """Hold a lease that was given after this progress; return what its context did."""
    stages, done = LeaseStages("m"), []

    @asynccontextmanager
    async def lease():
        for each in progress:
            stages.on_progress(each)
        if failure is not None:
            raise failure
        try:
            yield SimpleNamespace(backend="b")
        finally:
            done.append("released")

    async with stages.observing(lease()) as given:
        done.append(given.backend)
    return done


def seen(heard):
    return [(each.stage, each.error, dict(each.facts)) for each in heard]


async def test_a_loaded_model_has_no_stage(heard):
    assert await observed() == ["b", "released"]
    assert heard == []


async def test_a_load_is_a_stage(heard):
    await observed(Queued(0), Loading(0.5), Loading(1.0))
    assert seen(heard) == [("load", "", {})]


async def test_a_wait_behind_other_loads_is_a_stage_of_its_own(heard):
    await observed(Queued(2), Queued(1), Queued(0), Loading(1.0))
    assert seen(heard) == [("queue", "", {}), ("load", "", {})]
    assert heard[0].end_ns == heard[1].start_ns


@pytest.mark.parametrize(
    ("progress", "failure", "found"),
    [
        ((), QueueFullError(), []),
        ((Queued(1),), asyncio.CancelledError(), [("queue", "CANCELLED", {})]),
        ((Queued(1), Queued(0)), QueueFullError(), [("queue", "", {}), ("load", "QUEUE_FULL", {})]),
    ],
)
async def test_a_lease_that_is_not_given_ends_its_stage_with_the_reason(heard, progress, failure, found):
    with pytest.raises(type(failure)):
        await observed(*progress, failure=failure)
    assert seen(heard) == found
