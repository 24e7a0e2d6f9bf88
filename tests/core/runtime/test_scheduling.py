import asyncio

import pytest

from puna.backend import ModelSpec
from puna.errors import LoadFailedError
from puna.runtime.requirements import LeaseKind, Loading, ModelRequirements, Queued
from puna.runtime.scheduling import PROGRESS_SECONDS, Scheduler


def need(name):
    return ModelRequirements(key=name, name=name, spec=ModelSpec(path=f"/{name}"))


class Provider:
    """Models are their names. Each load waits for an event of its own, which `finish` sets."""

    def __init__(self):
        self.begun = []
        self.cancelled = []
        self.leases = []
        self.ends = {}
        self.errors = {}
        self.jobs = {}
        self.held = set()
        """Models that must wait for other loads."""
        self.second = asyncio.Event()

    async def provide(self, requirements, job):
        name = requirements.name
        self.begun.append(name)
        self.jobs[name] = job
        if len(self.begun) == 2:
            self.second.set()
        try:
            await self.ends.setdefault(name, asyncio.Event()).wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if name in self.errors:
            raise self.errors[name]
        return name

    def finish(self, name):
        self.ends.setdefault(name, asyncio.Event()).set()

    def must_wait(self, requirements):
        return requirements.key in self.held

    def satisfies(self, model, requirements):
        return model == requirements.name

    def acquire(self, model, kind):
        self.leases.append((model, kind))

    def release(self, model, kind):
        self.leases.remove((model, kind))


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
async def scheduler(provider):
    scheduler = Scheduler(provider, 60.0)
    yield scheduler
    await scheduler.close()


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def wait(scheduler, name, priority=0, on_progress=lambda _: None):
    return asyncio.ensure_future(scheduler.wait(need(name), LeaseKind.SEQUENCE, priority, on_progress))


async def test_requests_for_one_model_share_its_load(scheduler, provider):
    waiting = [wait(scheduler, "a") for _ in range(3)]
    await settle()
    provider.finish("a")
    assert await asyncio.gather(*waiting) == ["a", "a", "a"]
    assert provider.begun == ["a"]
    assert provider.leases == [("a", LeaseKind.SEQUENCE)] * 3


async def test_requests_for_one_model_share_its_error(scheduler, provider):
    provider.errors["a"] = LoadFailedError("broken")
    waiting = [wait(scheduler, "a") for _ in range(2)]
    await settle()
    provider.finish("a")
    assert [str(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == ["broken"] * 2
    assert provider.leases == []


async def test_models_are_loaded_one_after_the_other_by_priority(scheduler, provider):
    waiting = [wait(scheduler, "a"), wait(scheduler, "b"), wait(scheduler, "c", priority=1)]
    await settle()
    assert provider.begun == ["a"]
    for name in "acb":
        provider.finish(name)
    await asyncio.gather(*waiting)
    assert provider.begun == ["a", "c", "b"]


async def test_models_are_loaded_beside_one_that_has_a_place(scheduler, provider):
    waiting = [wait(scheduler, name) for name in "abc"]
    await settle()
    provider.jobs["a"].give_up_turn()
    await settle()
    assert provider.begun == ["a", "b"]
    for name in "bca":
        provider.finish(name)
    assert await asyncio.gather(*waiting) == ["a", "b", "c"]


async def test_a_model_without_room_waits_for_a_load_and_more_urgent_ones_do_not_wait_for_it(scheduler, provider):
    first = wait(scheduler, "a")
    await settle()
    provider.held = {"b", "c"}
    waiting = [wait(scheduler, "b"), wait(scheduler, "c", priority=1)]
    provider.jobs["a"].give_up_turn()
    await settle()
    assert provider.begun == ["a"]
    provider.held = set()
    provider.finish("a")
    await first
    await settle()
    assert provider.begun == ["a", "c"]
    provider.finish("b")
    provider.finish("c")
    await asyncio.gather(*waiting)


async def test_a_model_without_room_is_loaded_once_there_is_some_although_no_load_has_ended(scheduler, provider):
    """A load that makes no progress does not count any more."""
    stuck = wait(scheduler, "a")
    await settle()
    provider.held = {"b"}
    waiting = wait(scheduler, "b")
    provider.jobs["a"].give_up_turn()
    await settle()
    provider.held = set()
    provider.finish("b")
    assert await waiting == "b"
    assert not stuck.done()


async def test_a_request_that_leaves_does_not_keep_the_next_one_waiting(scheduler, provider):
    first = wait(scheduler, "a")
    await settle()
    provider.held = {"b"}
    waiting = [wait(scheduler, "b"), wait(scheduler, "c")]
    provider.jobs["a"].give_up_turn()
    await settle()
    waiting[0].cancel()
    provider.finish("c")
    assert await waiting[1] == "c"
    provider.finish("a")
    await first


async def test_a_job_that_waits_for_others_gives_up_the_turn_and_gets_it_back(scheduler, provider):
    first, second = wait(scheduler, "a"), wait(scheduler, "b")
    await settle()
    ended = asyncio.Event()
    resumed = asyncio.ensure_future(provider.jobs["a"].wait_without_turn(ended.wait()))
    await settle()
    assert provider.begun == ["a", "b"]
    ended.set()
    await settle()
    assert not resumed.done()  # b holds the turn
    provider.finish("b")
    await second
    await settle()
    assert resumed.done()
    provider.finish("a")
    await first


async def test_a_load_without_progress_loses_its_turn(provider):
    scheduler = Scheduler(provider, 0.05)
    first, second = wait(scheduler, "a"), wait(scheduler, "b")
    async with asyncio.timeout(5):
        await provider.second.wait()
    assert provider.begun == ["a", "b"]
    provider.finish("a")
    provider.finish("b")
    assert await asyncio.gather(first, second) == ["a", "b"]
    await scheduler.close()


async def test_progress_keeps_the_turn(provider, monkeypatch):
    loop = asyncio.get_running_loop()
    passed, clock = 0.0, loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + passed)
    scheduler = Scheduler(provider, 1000.0)
    first, second = wait(scheduler, "a"), wait(scheduler, "b")
    await settle()
    for step in range(10):
        provider.jobs["a"].report(Loading(step / 10))
        passed += 700.0
        await settle()
        assert provider.begun == ["a"]
    passed += 700.0
    await settle()
    assert provider.begun == ["a", "b"]
    for each in (first, second):
        each.cancel()
    await scheduler.close()


async def test_a_transfer_of_files_does_not_keep_the_turn(provider):
    scheduler = Scheduler(provider, 0.05)
    first, second = wait(scheduler, "a"), wait(scheduler, "b")
    await settle()
    async with asyncio.timeout(30):
        while provider.begun != ["a", "b"]:
            provider.jobs["a"].report(Loading(0.0, done_bytes=1, total_bytes=9))
            await asyncio.sleep(0.01)
    for each in (first, second):
        each.cancel()
    await scheduler.close()


async def test_the_last_request_that_leaves_cancels_the_load(scheduler, provider):
    first, second = wait(scheduler, "a"), wait(scheduler, "a")
    await settle()
    first.cancel()
    await settle()
    assert provider.cancelled == []
    second.cancel()
    await settle()
    assert provider.cancelled == ["a"]
    assert scheduler.waiting == 0


async def test_waiting_requests_hear_their_position_and_the_progress(scheduler, provider):
    heard = []
    first, second = wait(scheduler, "a"), wait(scheduler, "a", on_progress=heard.append)
    await settle()
    provider.jobs["a"].report(Loading(0.5))
    provider.jobs["a"].report(Loading(0.6))  # too soon after the first: see PROGRESS_SECONDS
    assert PROGRESS_SECONDS > 0
    assert heard == [Queued(1), Loading(0.5)]
    provider.finish("a")
    await asyncio.gather(first, second)


async def test_requests_of_batches_do_not_count_as_waiting(scheduler, provider):
    background = [
        asyncio.ensure_future(scheduler.wait(need(name), LeaseKind.BACKGROUND, -1, lambda _: None)) for name in "ab"
    ]
    await settle()
    assert scheduler.waiting == 0
    waiting = wait(scheduler, "c")
    await settle()
    assert scheduler.waiting == 1
    background[1].cancel()
    await settle()
    assert scheduler.waiting == 1
    for name in "ac":
        provider.finish(name)
    await asyncio.gather(waiting, background[0])
    assert scheduler.waiting == 0
