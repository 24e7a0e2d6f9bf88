import asyncio
import math

import pytest

from puna.backend import ModelFacts, ModelSpec
from puna.runtime.admission import Gate
from puna.runtime.keep_alive import FOREVER_NS, Resident, expiry_ns, victim
from puna.runtime.requirements import Wanted


class Model:
    facts = ModelFacts(context_length=64, vram_bytes=3)


def resident(name="m", keep_alive=5.0, holders=0):
    want = Wanted(key=name, name=name, digest="d", details="details", spec=ModelSpec(path=""), file_bytes=9)
    return Resident(want=want, backend="b", model=Model(), pid=1, gate=Gate(1), keep_alive=keep_alive, holders=holders)


def test_expiry_is_a_keep_alive_from_now():
    assert expiry_ns(1000, 1.5) == 1_500_001_000


@pytest.mark.parametrize("seconds", [math.inf, 1e30, 9_223_372_037])
def test_forever_is_292_years(seconds):
    assert expiry_ns(1, seconds) == FOREVER_NS + 1


async def test_an_idle_model_expires_after_its_keep_alive():
    expired, model = asyncio.Event(), resident(keep_alive=0.03)
    model.hold()
    model.release(expired.set)
    await asyncio.sleep(0)
    assert not expired.is_set()
    async with asyncio.timeout(5):
        await expired.wait()


async def test_a_held_model_does_not_expire():
    expired, model = asyncio.Event(), resident(keep_alive=0.01)
    model.hold()
    model.hold()
    model.release(expired.set)
    await asyncio.sleep(0.03)
    assert not expired.is_set()


async def test_a_new_holder_stops_the_timer():
    expired, model = asyncio.Event(), resident(keep_alive=0.01)
    model.hold()
    model.release(expired.set)
    model.hold()
    await asyncio.sleep(0.03)
    assert not expired.is_set()


@pytest.mark.parametrize(("keep_alive", "leaving"), [(0.0, False), (-1.0, False), (math.inf, True)])
async def test_some_expire_at_once(keep_alive, leaving):
    expired, model = asyncio.Event(), resident(keep_alive=keep_alive)
    model.leaving = leaving
    model.hold()
    model.release(expired.set)
    assert expired.is_set()


async def test_one_that_stays_for_good_has_no_timer():
    model = resident(keep_alive=math.inf)
    model.hold()
    model.release(lambda: None)
    assert model._timer is None
    assert model.entry(0).expires_at_ns > FOREVER_NS


async def test_ps_shows_the_end_of_the_last_idle_time():
    model = resident(keep_alive=5.0, holders=1)
    assert model.entry(7).expires_at_ns == 5_000_000_007
    model.release(lambda: None)
    first = model.entry(7).expires_at_ns
    assert first > 10**18
    model.hold()
    assert model.entry(7).expires_at_ns == first
    model.stop_timer()


def test_ps_values():
    entry = resident(holders=2).entry(0)
    assert (entry.name, entry.digest, entry.details, entry.backend, entry.pid) == ("m", "d", "details", "b", 1)
    assert (entry.size_bytes, entry.vram_bytes, entry.context_length) == (9, 3, 64)
    assert (entry.active, entry.queued) == (2, 0)


def test_an_idle_model_of_the_shortest_keep_alive_goes_first():
    forever, brief, busy = resident("a", math.inf), resident("z", 1), resident("b", 0, holders=1)
    assert victim([forever, brief, busy]) is brief
    assert victim([forever, busy]) is forever
    assert victim([busy]) is busy
    same = resident("y", 1)
    assert victim([brief, same]) is same
    with pytest.raises(ValueError, match="empty"):
        victim([])
