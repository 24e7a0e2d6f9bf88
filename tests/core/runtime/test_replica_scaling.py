import asyncio

import pytest
from tests.core.runtime.test_replicas import place, replica, replicas

from puna.errors import LoadFailedError
from puna.replica_count import ReplicaCount
from puna.runtime import replica_scaling
from puna.runtime.replica_scaling import ReplicaScaler
from puna.runtime.scaling import ScalingLimits

QUICK = ScalingLimits(wait_seconds=0.02, idle_seconds=0.02)


async def until(condition):
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("CROWDED_SECONDS", "CALM_SECONDS", "FIRST_PAUSE"):
        monkeypatch.setattr(replica_scaling, name, 0.01)


@pytest.fixture
async def scaled():
    found = []

    def scaled(owner, count, start=None, limits=QUICK):
        async def one():
            return replica(1)

        scaler = ReplicaScaler(owner, lambda: count[0], start or one, longest_pause=0.02, limits=limits)
        found.append(scaler)
        return scaler

    yield scaled
    for each in found:
        await each.aclose()


async def hold(owner, until_set):
    placement = place(owner)
    try:
        async with placement.replica.limiter.slot():
            await until_set.wait()
    finally:
        placement.end()


async def test_the_least_number_is_started_and_kept(scaled):
    owner = replicas(1, slots=1)
    scaled(owner, [ReplicaCount(3, 3)])
    await until(lambda: len(owner.members) == 3)
    owner.lose(owner.members[1])
    await until(lambda: len(owner.members) == 3)
    assert [each.number for each in owner.members] == [1, 3, 4]


async def test_requests_that_wait_start_a_replica_which_ends_when_idle(scaled):
    owner, end = replicas(1, slots=1), asyncio.Event()
    scaled(owner, [ReplicaCount(1, 2)])
    running = [asyncio.create_task(hold(owner, end)) for _ in range(2)]
    await until(lambda: len(owner.members) == 2)
    # All slots are free of waiting requests then, and no third replica is allowed in any case.
    end.set()
    await asyncio.gather(*running, return_exceptions=True)
    await until(lambda: len(owner.members) == 1)


async def test_a_start_that_fails_is_repeated(scaled):
    owner, attempts = replicas(1, slots=1), []

    async def start():
        attempts.append(1)
        if len(attempts) < 3:
            raise LoadFailedError("no room")
        return replica(1)

    scaled(owner, [ReplicaCount(2, 2)], start)
    await until(lambda: len(owner.members) == 2)
    assert len(attempts) == 3
    assert owner.starting == 0


async def test_a_reload_changes_the_number(scaled):
    owner, count = replicas(1, slots=1), [ReplicaCount(3, 3)]
    scaled(owner, count, limits=ScalingLimits())
    await until(lambda: len(owner.members) == 3)
    count[0] = ReplicaCount(1, 1)
    owner.crowded.set()
    await until(lambda: len(owner.members) == 1)


async def test_the_end_cancels_starts(scaled):
    owner, ended = replicas(1, slots=1), []

    async def start():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    scaler = scaled(owner, [ReplicaCount(2, 2)], start)
    await until(lambda: owner.starting == 1)
    await scaler.aclose()
    assert (ended, owner.starting) == ([1], 0)
