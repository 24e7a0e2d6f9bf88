import asyncio

import pytest

from puna.models.registry.limits import Limits
from puna.models.registry.sharing import Shared
from puna.models.registry.transfer import Transfer


class Walk(Transfer):
    """A transfer that goes as the test says."""

    def __init__(self):
        super().__init__(Limits(tick=0.01))
        self.go = asyncio.Event()
        self.error = None
        self.ended = False

    @property
    def completed(self):
        return 3

    async def _run(self):
        try:
            self.total = 5
            self._prepared.set()
            await self.go.wait()
            if self.error:
                raise self.error
            self._arrived.set()
        finally:
            self.ended = True


async def test_one_transfer_for_all():
    shared = Shared()
    async with shared.joined("a", Walk) as one, shared.joined("a", Walk) as two, shared.joined("b", Walk) as other:
        assert one is two is not other
    assert one.ended
    assert len(shared) == 0


async def test_it_goes_on_until_the_last_one_leaves():
    shared = Shared()
    async with shared.joined("a", Walk) as one:
        async with shared.joined("a", Walk):
            await asyncio.sleep(0)
        assert not one.ended
    assert one.ended


async def test_a_failure_is_everybodys_but_not_the_next_ones():
    shared = Shared()
    async with shared.joined("a", Walk) as one:
        one.error = ValueError("broken")
        one.go.set()
        with pytest.raises(ValueError, match="broken"):
            await one.finished()
        assert one.has_failed
        async with shared.joined("a", Walk) as next_one:
            assert next_one is not one


async def test_progress_is_told_at_every_tick_until_all_is_here():
    shared = Shared()
    async with shared.joined("a", Walk) as one:
        ticks = one.progress(at_least_once=False)
        assert [await anext(ticks), await anext(ticks)] == [(5, 3), (5, 3)]
        one.go.set()
        assert [each async for each in ticks] == []


async def test_uploads_tell_at_least_once():
    shared = Shared()
    async with shared.joined("a", Walk) as one:
        one.go.set()
        assert [each async for each in one.progress(at_least_once=True)] == [(5, 3)]
