import asyncio
import math

import pytest

from puna.backend import KvCacheUsage, ModelFacts, ModelSpec
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.keep_alive import LONGEST_NS, PooledModel, eviction_candidate, expires_at_ns
from puna.runtime.replicas import Replica
from puna.runtime.requirements import ModelRequirements


class Model:
    facts = ModelFacts(context_length=64, vram_bytes=3, kv_cache_tokens=128, kv_cache_type="q8_0")

    def kv_cache_usage(self):
        return KvCacheUsage(9, 4)


def resident(name="m", keep_alive=5.0, lease_count=0):
    requirements = ModelRequirements(
        key=name, name=name, digest="d", details="details", spec=ModelSpec(path=""), file_bytes=9
    )
    return PooledModel(
        requirements=requirements,
        backend="b",
        first=Replica(model=Model(), pid=1, limiter=ConcurrencyLimiter(1), file_bytes=9),
        keep_alive=keep_alive,
        lease_count=lease_count,
    )


def test_expiry_is_a_keep_alive_from_now():
    assert expires_at_ns(1000, 1.5) == 1_500_001_000


@pytest.mark.parametrize("seconds", [math.inf, 1e30, 9_223_372_037])
def test_forever_is_292_years(seconds):
    assert expires_at_ns(1, seconds) == LONGEST_NS + 1


async def test_an_idle_model_expires_after_its_keep_alive():
    expired, model = asyncio.Event(), resident(keep_alive=0.03)
    model.acquire()
    model.release(expired.set)
    await asyncio.sleep(0)
    assert not expired.is_set()
    async with asyncio.timeout(5):
        await expired.wait()


async def test_a_held_model_does_not_expire():
    expired, model = asyncio.Event(), resident(keep_alive=0.01)
    model.acquire()
    model.acquire()
    model.release(expired.set)
    await asyncio.sleep(0.03)
    assert not expired.is_set()


async def test_a_new_holder_stops_the_timer():
    expired, model = asyncio.Event(), resident(keep_alive=0.01)
    model.acquire()
    model.release(expired.set)
    model.acquire()
    await asyncio.sleep(0.03)
    assert not expired.is_set()


@pytest.mark.parametrize(("keep_alive", "evicting"), [(0.0, False), (-1.0, False), (math.inf, True)])
async def test_some_expire_at_once(keep_alive, evicting):
    expired, model = asyncio.Event(), resident(keep_alive=keep_alive)
    model.evicting = evicting
    model.acquire()
    model.release(expired.set)
    assert expired.is_set()


async def test_one_that_stays_for_good_has_no_timer():
    model = resident(keep_alive=math.inf)
    model.acquire()
    model.release(lambda: None)
    assert model._timer is None
    assert model.entry(0).expires_at_ns > LONGEST_NS


async def test_a_pinned_model_stays_until_a_request_unloads_it():
    pinned = {"m"}
    model = resident(keep_alive=0.0)
    model.names, model.pins = {"m"}, lambda names: not pinned.isdisjoint(names)
    model.acquire()
    model.release(lambda: pytest.fail("it has expired"))
    assert model.pinned
    assert model.entry(0).pinned
    assert model.entry(0).expires_at_ns > LONGEST_NS
    expired = asyncio.Event()
    model.unloading = True
    model.start_timer_if_idle(expired.set)
    assert expired.is_set()
    model.unloading = False
    pinned.clear()
    assert not model.pinned


async def test_a_request_pins_beside_the_configuration():
    model = resident(keep_alive=0.0)
    model.acquire()
    model.pinned_by_request = True
    model.release(lambda: pytest.fail("it has expired"))
    assert model.entry(0).pinned
    model.unloading = True
    assert not model.pinned


async def test_ps_shows_the_end_of_the_last_idle_time():
    model = resident(keep_alive=5.0, lease_count=1)
    assert model.entry(7).expires_at_ns == 5_000_000_007
    model.release(lambda: None)
    first = model.entry(7).expires_at_ns
    assert first > 10**18
    model.acquire()
    assert model.entry(7).expires_at_ns == first
    model.stop_timer()


def test_ps_values():
    entry = resident(lease_count=2).entry(0)
    assert (entry.name, entry.digest, entry.details, entry.backend, entry.pid) == ("m", "d", "details", "b", 1)
    assert (entry.size_bytes, entry.vram_bytes, entry.context_length) == (9, 3, 64)
    assert (entry.active, entry.queued) == (2, 0)
    [replica] = entry.replicas
    assert (replica.number, replica.node, replica.process_id, replica.active, replica.slots) == (1, "", 1, 2, 1)
    assert (replica.size_bytes, replica.vram_bytes, replica.kv_cache_usage) == (9, 3, KvCacheUsage(9, 4))
    assert (entry.kv_cache_tokens, entry.kv_cache_type, entry.kv_cache_usage) == (128, "q8_0", KvCacheUsage(9, 4))


def test_an_idle_model_of_the_shortest_keep_alive_goes_first():
    forever, brief, busy = resident("a", math.inf), resident("z", 1), resident("b", 0, lease_count=1)
    assert eviction_candidate([forever, brief, busy]) is brief
    assert eviction_candidate([forever, busy]) is forever
    assert eviction_candidate([busy]) is busy
    same = resident("y", 1)
    assert eviction_candidate([brief, same]) is same
    with pytest.raises(ValueError, match="empty"):
        eviction_candidate([])
