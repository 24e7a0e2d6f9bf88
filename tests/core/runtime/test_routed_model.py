"""Models of several replicas, in real host processes of the scripted backend."""

import asyncio
import os
import signal
from contextlib import aclosing

import pytest

from puna.backend import Finish, SequenceRequest, TextDelta
from puna.errors import BackendCrashedError
from puna.model_settings import ConfiguredModels, ModelSettings
from puna.replica_count import ReplicaCount


async def text(model, prompt):
    async with aclosing(model.generate(SequenceRequest(prompt=prompt))) as events:
        return [event.text async for event in events if isinstance(event, TextDelta)]


async def until(condition):
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def use(pool, wanted, prompt):
    async with pool.lease(wanted) as lease:
        return await text(lease.model, prompt)


async def test_replicas_share_requests_and_a_death_costs_only_answers_that_have_begun(make_pool, want, journal):
    pool = await make_pool(replicas=ReplicaCount(2, 2), routing="least-loaded")
    wanted = want(parallel=1)
    assert await use(pool, wanted, "a") == ["a"]
    await until(lambda: len(pool.loaded()[0].replicas) == 2)
    async with asyncio.TaskGroup() as group, pool.lease(wanted) as lease:
        events = lease.model.generate(SequenceRequest(prompt="a @wait 600"))
        assert isinstance(await anext(events), TextDelta)
        busy = next(each for each in pool.loaded()[0].replicas if each.active)
        beside = group.create_task(use(pool, wanted, "@prefill 1 1 b"))
        await until(lambda: [each.active for each in pool.loaded()[0].replicas] == [1, 1])
        queued = [group.create_task(use(pool, wanted, str(number))) for number in range(4)]
        await until(lambda: pool.loaded()[0].queued == 4)
        [entry] = pool.loaded()
        assert (entry.slots, entry.active, entry.routing) == (2, 2, "least-loaded")
        os.kill(busy.process_id, signal.SIGKILL)
        with pytest.raises(BackendCrashedError, match="SIGKILL"):
            await anext(events)
    assert beside.result() == ["b"]
    assert [each.result() for each in queued] == [["0"], ["1"], ["2"], ["3"]]
    # Another one takes the place of the replica that was lost, and nothing was loaded anew for the model.
    await until(lambda: [each.number for each in pool.loaded()[0].replicas] == [3 - busy.number, 3])
    assert journal.lines().count("loading") == 3


async def test_an_unanswered_request_goes_on_at_another_replica_and_all_may_die(make_pool, want, tmp_path):
    pool = await make_pool(replicas=ReplicaCount(2, 2))
    wanted = want()
    async with pool.lease(wanted) as lease:
        await until(lambda: len(pool.loaded()[0].replicas) == 2)
        assert await text(lease.model, f"@crash_once {tmp_path}/once a") == ["a"]
        await until(lambda: len(pool.loaded()[0].replicas) == 2)
        with pytest.raises(BackendCrashedError, match="SIGSEGV"):
            await text(lease.model, "@crash SIGSEGV")
        assert await text(lease.model, "b") == ["b"]
        for each in pool.loaded()[0].replicas:
            os.kill(each.process_id, signal.SIGKILL)
        assert await lease.model.tokenize("a", add_special=False, parse_special=False) == [97]
        assert len(await lease.model.embed(["a"])) == 1
        async with aclosing(lease.model.generate(SequenceRequest(prompt="c"))) as events:
            assert [type(event) async for event in events] == [TextDelta, Finish]
    await until(lambda: pool.loaded()[0].active == 0)


async def test_settings_of_a_model_and_a_reload(make_pool, want):
    two = ConfiguredModels((ModelSettings(name="a", replicas=ReplicaCount(2, 2), routing="random"),))
    pool = await make_pool(model_settings=two)
    assert await use(pool, want("a"), "x") == ["x"]
    assert await use(pool, want("b"), "x") == ["x"]

    def rows():
        return {each.name: (len(each.replicas), each.routing) for each in pool.loaded()}

    await until(lambda: rows() == {"a:latest": (2, "random"), "b:latest": (1, "prefix")})
    object.__setattr__(pool._settings, "model_settings", ConfiguredModels())
    object.__setattr__(pool._settings, "replicas", ReplicaCount(2, 2))
    pool.adopt_settings()
    await until(lambda: rows() == {"a:latest": (2, "prefix"), "b:latest": (2, "prefix")})
    assert await use(pool, want("b"), "x") == ["x"]
