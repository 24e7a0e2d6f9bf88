import asyncio

import pytest

from puna import events
from puna.backend import ModelFacts, ModelSpec
from puna.runtime import loaded_models
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.keep_alive import PooledModel
from puna.runtime.loaded_models import LoadedModels
from puna.runtime.replicas import Replica
from puna.runtime.requirements import LeaseKind, ModelRequirements


class Model:
    facts = ModelFacts(context_length=64)

    def __init__(self, close=None):
        self.closed = asyncio.Event()
        self._close = close

    async def aclose(self):
        if self._close is not None:
            await self._close()
        self.closed.set()


def pooled(name, keep_alive=60.0, close=None):
    requirements = ModelRequirements(key=name, name=name, spec=ModelSpec(path=name))
    return PooledModel(
        requirements=requirements,
        backend="b",
        first=Replica(model=Model(close), pid=0, limiter=ConcurrencyLimiter(1)),
        keep_alive=keep_alive,
    )


@pytest.fixture
async def models():
    models = LoadedModels()
    yield models
    await models.close()


async def test_an_idle_model_is_removed_and_freed_when_it_is_evicted(models):
    each = pooled("a")
    models.add(each)
    models.evict(each)
    assert models.get("a") is None
    assert each.removed.is_set()
    async with asyncio.timeout(5):
        await each.model.closed.wait()


async def test_a_busy_model_is_removed_when_its_last_lease_ends(models):
    each = pooled("a")
    models.add(each)
    each.acquire(LeaseKind.SEQUENCE)
    models.evict(each)
    assert models.get("a") is each
    assert each.evicting
    each.release(lambda: models.remove(each), LeaseKind.SEQUENCE)
    assert models.get("a") is None


async def test_removing_an_old_instance_leaves_the_new_one(models):
    old, new = pooled("a"), pooled("a")
    models.add(old)
    models.remove(old)
    models.add(new)
    models.remove(old)
    assert models.get("a") is new


async def test_excess_models_are_evicted_but_not_the_one_to_keep(models):
    each = [pooled("a", keep_alive=1), pooled("b", keep_alive=2), pooled("c", keep_alive=0.5)]
    for one in each:
        models.add(one)
    heard = []
    stop = events.subscribe(events.ModelRemoved, heard.append)
    models.evict_excess(each[2], 2)
    stop()
    assert [(each.model, each.cause, each.evicted_for) for each in heard] == [("a", "evicted", "c")]
    assert [one.requirements.name for one in models.all()] == ["b", "c"]


async def test_memory_is_waited_for_until_it_is_free(models):
    freed = asyncio.Event()
    each = pooled("a", close=freed.wait)
    models.add(each)
    models.remove(each)
    waiting = asyncio.ensure_future(models.wait_for_memory())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    freed.set()
    assert await waiting is True
    assert await models.wait_for_memory() is False


async def test_a_model_that_is_never_freed_is_waited_for_once(models, monkeypatch):
    monkeypatch.setattr(loaded_models, "CLOSING_SECONDS", 0.01)
    never = asyncio.Event()
    each = pooled("a", close=never.wait)
    models.add(each)
    models.remove(each)
    assert await models.wait_for_memory() is True
    assert await models.wait_for_memory() is False
    never.set()


async def test_a_removal_is_a_change(models):
    each = pooled("a")
    models.add(each)
    change = models.next_change()
    models.remove(each)
    async with asyncio.timeout(5):
        await change


async def test_an_error_while_freeing_is_logged_and_stops_nothing(models, caplog):
    async def fail():
        raise OSError("no")

    each = pooled("a", close=fail)
    models.add(each)
    models.remove(each)
    assert await models.wait_for_memory() is True
    assert "could not be freed: OSError" in caplog.text
