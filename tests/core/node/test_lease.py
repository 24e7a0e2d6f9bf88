import asyncio

import pytest

from puna.node import lease
from puna.node.lease import LeaseHeldError, LeaseHolder


class Host:
    """Stands for a NodeHost."""

    def __init__(self):
        self.ended = False

    async def end(self):
        self.ended = True


async def test_a_second_core_is_refused_until_the_first_gives_the_lease_back():
    holder = LeaseHolder(60)
    await holder.renew("lease 1", "core 1", "gpu-box (process 7)")
    host = holder.held("lease 1").hosts["h"] = Host()
    with pytest.raises(LeaseHeldError, match=r"another core, gpu-box \(process 7\)"):
        await holder.renew("lease 2", "core 2", "other")
    await holder.renew("lease 1", "core 1", "gpu-box")
    await holder.release("lease 1")
    assert host.ended
    await holder.renew("lease 2", "core 2", "other")
    assert holder.held("lease 1") is None


async def test_a_new_lease_of_the_same_core_ends_the_hosts_of_the_old_one():
    holder = LeaseHolder(60)
    await holder.renew("lease 1", "core 1", "a")
    host = holder.held("lease 1").hosts["h"] = Host()
    await holder.renew("lease 2", "core 1", "a")
    assert host.ended
    assert holder.held("lease 1") is None
    assert holder.held("lease 2").hosts == {}


async def test_a_lease_that_is_not_renewed_ends_with_its_hosts():
    holder = LeaseHolder(0.6)
    watching = asyncio.create_task(holder.watch())
    await holder.renew("lease 1", "core 1", "a")
    host = holder.held("lease 1").hosts["h"] = Host()
    await asyncio.wait_for(holder.ended.wait(), 30)
    assert host.ended
    await holder.renew("lease 2", "core 2", "b")
    watching.cancel()


async def test_another_core_takes_a_lease_without_hosts_that_is_not_renewed(monkeypatch):
    holder = LeaseHolder(60)
    await holder.renew("lease 1", "core 1", "a")
    host = holder.held("lease 1").hosts["h"] = Host()
    monkeypatch.setattr(lease, "ABANDONED_SECONDS", 0.0)
    with pytest.raises(LeaseHeldError):
        await holder.renew("lease 2", "core 2", "b")
    assert not host.ended
    del holder.held("lease 1").hosts["h"]
    await holder.renew("lease 2", "core 2", "b")
    assert holder.held("lease 2") is not None


async def test_a_core_waits_for_a_lease_without_hosts_until_it_is_renewed_or_abandoned(monkeypatch):
    monkeypatch.setattr(lease, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(lease, "ABANDONED_SECONDS", 60.0)
    holder = LeaseHolder(60)
    await holder.renew("lease 1", "core 1", "a")
    asking = asyncio.create_task(holder.renew("lease 2", "core 2", "b"))
    await asyncio.sleep(0.05)
    assert not asking.done()
    await holder.renew("lease 1", "core 1", "a")
    with pytest.raises(LeaseHeldError):
        await asyncio.wait_for(asking, 30)
    asking = asyncio.create_task(holder.renew("lease 2", "core 2", "b"))
    await asyncio.sleep(0.05)
    assert not asking.done()
    monkeypatch.setattr(lease, "ABANDONED_SECONDS", 0.0)
    await asyncio.wait_for(asking, 30)
    assert holder.held("lease 2") is not None


async def test_releasing_a_lease_that_is_not_held_does_nothing():
    holder = LeaseHolder(60)
    await holder.renew("lease 1", "core 1", "a")
    await holder.release("lease 0")
    assert holder.held("lease 1") is not None
