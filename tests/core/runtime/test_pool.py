"""The pool over real host processes of the scripted backend."""

import asyncio
import math
import os
import signal
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

import pytest

from puna.backend import SequenceRequest, TextDelta
from puna.errors import (
    BackendCrashedError,
    BackendNotFoundError,
    LoadFailedError,
    OutOfMemoryError,
    QueueFullError,
)
from puna.limits import Limits
from puna.model_settings import ConfiguredModels, ModelSettings
from puna.plugins import Registry
from puna.runtime.admission import NEAR_WAITERS
from puna.runtime.errors import HostFailedError, HostKilledError
from puna.runtime.keep_alive import LONGEST_NS, MAX_CALLS
from puna.runtime.requirements import LeaseKind, Loading, Queued


async def text(model, prompt):
    async with aclosing(model.generate(SequenceRequest(prompt=prompt))) as events:
        return [event.text async for event in events if isinstance(event, TextDelta)]


async def use(pool, wanted, prompt="a", **how):
    async with pool.lease(wanted, **how) as lease:
        await text(lease.model, prompt)
        return pool.loaded()[0].pid


def names(pool):
    return [entry.name for entry in pool.loaded()]


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


def started(pool, wanted, prompt="a", **how):
    return asyncio.ensure_future(use(pool, wanted, prompt, **how))


async def begun(pool, wanted):
    """Start an answer without an end, and wait for its first piece."""
    first = asyncio.Event()

    async def read():
        async with (
            pool.lease(wanted) as lease,
            aclosing(lease.model.generate(SequenceRequest(prompt="a @wait 600"))) as events,
        ):
            async for _ in events:
                first.set()

    task = asyncio.ensure_future(read())
    await first.wait()
    return task


async def test_a_model_is_loaded_once_and_lent_to_all(make_pool, want, journal):
    pool = await make_pool()
    await asyncio.gather(*(use(pool, want(name)) for name in "abbab"))
    assert journal.lines().count("loading") == 2
    assert sorted(names(pool)) == ["a:latest", "b:latest"]


async def test_a_lease_says_what_it_lends(make_pool, want):
    pool = await make_pool()
    async with pool.lease(want(context_length=100_000)) as lease:
        assert (lease.key, lease.backend, lease.facts.context_length) == ("/models/m", "scripted", 8192)
        first = lease.load_ns
    async with pool.lease(want(context_length=100_000)) as lease:
        assert 0 < lease.load_ns < first


async def test_waiting_and_loading_are_reported(make_pool, want):
    pool = await make_pool()
    first, second, same = [], [], []
    await asyncio.gather(
        use(pool, want("a", load="slow"), on_progress=first.append),
        use(pool, want("b"), on_progress=second.append),
        use(pool, want("a", load="slow"), on_progress=same.append),
    )
    assert first[0] == Queued(0)
    assert first[-1] == Loading(1.0)
    assert second[0] == Queued(1)
    # It has waited for the other model, and then got its own model and a slot.
    assert second[-2:] == [Loading(1.0), Queued(0)]
    assert Loading(1.0) in same


async def test_ps(make_pool, want):
    pool = await make_pool()
    async with pool.lease(want(size_bytes=123), keep_alive=60):
        (entry,) = pool.loaded()
        assert (entry.name, entry.digest, entry.backend) == ("m:latest", "digest of m", "scripted")
        assert (entry.size_bytes, entry.vram_bytes, entry.context_length) == (123, 0, 4096)
        assert (entry.active, entry.queued) == (1, 0)
        os.kill(entry.pid, 0)
    assert pool.loaded()[0].active == 0


async def test_ps_shows_the_latest_expiry_first(make_pool, want):
    pool = await make_pool()
    await use(pool, want("a"), keep_alive=60)
    await use(pool, want("b"), keep_alive=math.inf)
    await use(pool, want("c"))
    assert names(pool) == ["b:latest", "c:latest", "a:latest"]
    assert pool.loaded()[0].expires_at_ns > LONGEST_NS


async def test_sequences_wait_for_their_places(make_pool, want):
    pool = await make_pool()
    wanted = want(parallel=2)
    async with pool.lease(wanted) as lease:
        assert lease.facts.parallel == 2
    positions = []
    running = [started(pool, wanted, "@wait 60") for _ in range(2)]
    await until(lambda: pool.loaded()[0].active == 2)
    async with pool.lease(wanted, on_progress=positions.append) as lease:
        waiting = asyncio.ensure_future(text(lease.model, "a"))
        await until(lambda: pool.loaded()[0].queued == 1)
        assert await lease.model.tokenize("a", add_special=False, parse_special=False) == [97]
        running[0].cancel()
        assert await waiting == ["a"]
        assert positions == [Queued(1), Queued(0)]
        assert lease.model.queued_ns > 0
    running[1].cancel()
    await asyncio.wait(running)


async def test_a_model_goes_when_its_time_is_over(make_pool, want, journal):
    pool = await make_pool()
    await use(pool, want(), keep_alive=0.1)
    assert names(pool) == ["m:latest"]
    await journal.until("closed")
    assert names(pool) == []


async def test_keep_alive_zero_means_going_at_once(make_pool, want, journal):
    pool = await make_pool()
    await use(pool, want(), keep_alive=0)
    assert names(pool) == []
    await journal.until("closed")


async def test_a_keep_alive_stays_until_another_is_asked_for(make_pool, want):
    pool = await make_pool(keep_alive=1000.0)
    await use(pool, want(), keep_alive=math.inf)
    await use(pool, want())
    assert pool.loaded()[0].expires_at_ns > LONGEST_NS
    await use(pool, want(), keep_alive=50)
    assert pool.loaded()[0].expires_at_ns < LONGEST_NS


async def test_unloading_an_idle_model_is_immediate(make_pool, want):
    pool = await make_pool()
    wanted = want()
    await use(pool, wanted)
    assert await pool.unload(wanted.key)
    assert names(pool) == []
    assert not await pool.unload(wanted.key)


async def test_unloading_lets_running_requests_finish(make_pool, want):
    pool = await make_pool()
    wanted = want()
    async with pool.lease(wanted) as lease:
        assert await pool.unload(wanted.key)
        assert await text(lease.model, "a b") == ["a", "b"]
        assert names(pool) == ["m:latest"]
    assert names(pool) == []


async def test_another_context_means_loading_anew_once_nobody_runs(make_pool, want, journal):
    pool = await make_pool()
    async with pool.lease(want()) as lease:
        other = started(pool, want(context_length=2048))
        await until(lambda: pool.waiting() == 1)
        late = started(pool, want())  # must not keep the old one busy for ever
        await asyncio.sleep(0.05)
        assert await text(lease.model, "a") == ["a"]
        assert journal.lines().count("loading") == 1
    await asyncio.gather(other, late)
    assert [line.split()[2] for line in journal.lines() if line.startswith("load ")] == ["4096", "2048", "4096"]


async def test_another_context_that_nobody_asked_for_changes_nothing(make_pool, want, journal):
    pool = await make_pool()
    pid = await use(pool, want(automatic=["context_length"]))
    assert await use(pool, want(automatic=["context_length"], context_length=2048)) == pid


async def test_an_idle_model_makes_room(make_pool, want):
    pool = await make_pool(max_loaded_models=2)
    await use(pool, want("a"), keep_alive=100)
    await use(pool, want("b"), keep_alive=10)
    await use(pool, want("c"), keep_alive=50)
    assert names(pool) == ["a:latest", "c:latest"]


async def test_idle_models_make_room_for_one_that_needs_their_memory(make_pool, want):
    pool = await make_pool()
    await use(pool, want("idle"))
    async with pool.lease(want("busy")):
        await use(pool, replace(want("small"), file_bytes=1))
        assert sorted(names(pool)) == ["busy:latest", "idle:latest", "small:latest"]
        await use(pool, replace(want("huge"), file_bytes=2**60))
        assert sorted(names(pool)) == ["busy:latest", "huge:latest"]  # it need not wait for who is busy


async def test_three_models_stay_by_default(make_pool, want):
    pool = await make_pool()
    for name in "abcd":
        await use(pool, want(name))
    assert len(pool.loaded()) == 3


async def test_a_busy_model_makes_room_when_it_is_done(make_pool, want):
    pool = await make_pool(max_loaded_models=1)
    async with pool.lease(want("a")):
        other = started(pool, want("b"))
        await until(lambda: pool.waiting() == 1)
        await asyncio.sleep(0.05)
        assert names(pool) == ["a:latest"]
    await other
    assert names(pool) == ["b:latest"]


async def test_one_load_at_a_time_and_a_full_queue_refuses(make_pool, want):
    pool = await make_pool(max_queue=1)
    stuck = started(pool, want("a", load="stall"))
    await until(lambda: pool.waiting() == 1)
    waiting = started(pool, want("b"))
    await until(lambda: pool.waiting() == 2)
    with pytest.raises(QueueFullError):
        await use(pool, want("c"))
    stuck.cancel()
    await waiting
    assert names(pool) == ["b:latest"]


async def test_a_queue_of_none_refuses_when_busy(make_pool, want):
    pool = await make_pool(max_queue=0)
    two = want("a", parallel=2)
    answers = await asyncio.gather(use(pool, two), use(pool, want("b")), return_exceptions=True)
    assert isinstance(answers[1], QueueFullError)
    await asyncio.gather(use(pool, two), use(pool, two))  # what is loaded and has a place needs no queue
    with pytest.raises(QueueFullError):
        await asyncio.gather(*(use(pool, two) for _ in range(3)))
    await use(pool, want("b"))


async def test_a_model_may_have_a_shorter_queue(make_pool, want):
    pool = await make_pool(model_settings=ConfiguredModels((ModelSettings(name="busy", max_queue=1),)))
    busy, other = want("busy", parallel=1), want("other", parallel=1)
    running = [started(pool, each, "@wait 60") for each in (busy, other)]
    await until(lambda: [each.active for each in pool.loaded()] == [1, 1])
    running += [started(pool, each) for each in (busy, other, other)]
    await until(lambda: sum(each.queued for each in pool.loaded()) == 3)
    with pytest.raises(QueueFullError):
        await use(pool, busy)
    async with pool.lease(busy, kind=LeaseKind.BACKGROUND):  # batches give way by themselves
        pass
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_the_queue_of_a_model_counts_those_that_wait_for_its_load(make_pool, want):
    tables = ConfiguredModels((ModelSettings(name="b", max_queue=1),))
    pool = await make_pool(model_settings=tables, max_loaded_models=1)
    stuck = started(pool, want("a", load="stall"))
    await until(lambda: pool.waiting() == 1)
    waiting = [started(pool, want(name)) for name in "bcc"]
    await until(lambda: pool.waiting() == 4)
    with pytest.raises(QueueFullError):
        await use(pool, want("b"))
    stuck.cancel()
    await asyncio.gather(*waiting)


async def test_a_model_may_have_its_own_keep_alive(make_pool, want):
    tables = ModelSettings(name="brief", keep_alive=0.0), ModelSettings(name="long", keep_alive=math.inf)
    pool = await make_pool(model_settings=ConfiguredModels(tables))
    for name in ("brief", "long", "usual"):
        await use(pool, want(name))
    now = time.time_ns()
    assert {each.name: each.expires_at_ns - now > 1e18 for each in pool.loaded()} == {
        "long:latest": True,
        "usual:latest": False,
    }
    await use(pool, want("long"), keep_alive=0.0)  # a request says otherwise
    assert names(pool) == ["usual:latest"]


def pinning(*names):
    return ConfiguredModels(tuple(ModelSettings(name=each, pin=True) for each in names))


async def test_pins_hold_from_the_reload_on(make_pool, want):
    pool = await make_pool(model_settings=pinning("a"), max_loaded_models=2)
    await use(pool, want("a"), keep_alive=0.0)
    await use(pool, want("b"), keep_alive=1000.0)
    assert {each.name: each.pinned for each in pool.loaded()} == {"a:latest": True, "b:latest": False}
    pool._settings.adopt(replace(pool._settings, model_settings=pinning("b")))
    pool.adopt_settings()
    # The keep-alive of the last request holds again.
    assert {each.name: each.pinned for each in pool.loaded()} == {"b:latest": True}
    assert pool.loaded()[0].expires_at_ns > LONGEST_NS
    assert await pool.unload(want("b").key)
    assert pool.loaded() == []


async def test_requests_for_models_that_exclude_each_other_all_end(make_pool, want):
    sets = ConfiguredModels(sets={"one": ("a", "b")})
    pool = await make_pool(model_settings=sets, max_loaded_models=9)
    both = []

    async def ask(name):
        async with pool.lease(want(name)) as lease:
            await text(lease.model, "@wait 0.01 x")
            # One that is leaving is no longer in the list once the other is loaded.
            both.append(len(pool.loaded()))

    await asyncio.gather(*(ask(name) for name in "ab" * 6))
    assert both == [1] * 12


async def test_a_reload_restarts_no_keep_alive_that_it_does_not_concern(make_pool, want):
    pool = await make_pool()
    await use(pool, want("a"), keep_alive=1000.0)
    (before,) = pool.loaded()
    pool.adopt_settings()
    assert pool.loaded() == [before]


async def test_the_queue_bounds_all_that_wait(make_pool, want):
    pool = await make_pool(max_queue=3)
    busy = want("busy", parallel=1)
    running = [started(pool, busy, "@wait 60")]
    await until(lambda: pool.loaded() and pool.loaded()[0].active == 1)
    running += [started(pool, busy, "a") for _ in range(2)]
    await until(lambda: pool.loaded()[0].queued == 2)
    loading = started(pool, want("a", load="stall"))  # served, so it does not wait
    await until(lambda: pool.waiting() == 1)
    running.append(started(pool, want("b")))
    await until(lambda: pool.waiting() == 2)
    for wanted in (busy, want("a", load="stall"), want("c")):
        with pytest.raises(QueueFullError):
            await use(pool, wanted)
    async with pool.lease(busy, kind=LeaseKind.LOAD_ONLY), pool.lease(busy, kind=LeaseKind.CALL) as lease:
        assert await lease.model.tokenize("a", add_special=False, parse_special=False) == [97]
    running[2].cancel()
    await until(lambda: pool.loaded()[0].queued == 1)
    running.append(started(pool, busy, "a"))
    await until(lambda: pool.loaded()[0].queued == 2)
    for task in (loading, *running):
        task.cancel()
    await asyncio.wait([loading, *running])
    await until(lambda: pool.waiting() == 0)
    await use(pool, busy)


async def test_calls_beyond_what_a_model_serves_at_once_wait_and_are_bounded(make_pool, want):
    pool = await make_pool(max_queue=2)
    async with AsyncExitStack() as stack:
        for _ in range(MAX_CALLS + 2):
            await stack.enter_async_context(pool.lease(want(), kind=LeaseKind.CALL))
        with pytest.raises(QueueFullError):
            await stack.enter_async_context(pool.lease(want(), kind=LeaseKind.CALL))
    async with pool.lease(want(), kind=LeaseKind.CALL):
        pass


async def test_those_who_wait_for_the_same_load_share_its_error(make_pool, want, journal):
    pool = await make_pool()
    tasks = [started(pool, want(load="stall")) for _ in range(5)]
    await journal.until("loading")
    os.kill(int(journal.lines()[0].split()[1]), signal.SIGSEGV)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == 5 * [HostFailedError]
    assert journal.lines().count("loading") == 1


async def test_a_host_that_is_killed_while_it_loads_is_replaced_once(make_pool, want, journal, caplog):
    pool = await make_pool()
    await use(pool, want(load="kill once"))
    assert journal.lines().count("loading") == 2
    assert "m:latest: llama-server process has terminated: SIGKILL" in caplog.text
    assert "the model is loaded once more" in caplog.text
    with pytest.raises(HostKilledError, match="SIGKILL"):
        await use(pool, want("other", load="kill"))
    assert journal.lines().count("loading") == 4
    # One request has failed, so the next one is not told to wait.
    with pytest.raises(HostKilledError):
        await use(pool, want("other", load="kill"))
    assert journal.lines().count("loading") == 6


@pytest.mark.parametrize("how", ["crash", "exit"])
async def test_a_host_that_ends_by_itself_while_it_loads_is_not_replaced(make_pool, want, journal, how):
    """It would end again, after another long load perhaps."""
    pool = await make_pool()
    with pytest.raises(HostFailedError):
        await use(pool, want(load=how))
    assert journal.lines().count("loading") == 1


NEVER_SILENT = Limits(max_silent_load_seconds=math.inf)


async def test_models_are_loaded_beside_each_other(make_pool, want):
    pool = await make_pool(limits=NEVER_SILENT)
    stuck = started(pool, want("a", load="stall"))
    await until(lambda: pool.waiting() == 1)
    await asyncio.gather(use(pool, want("b")), use(pool, want("c")))
    assert not stuck.done()
    stuck.cancel()


async def test_a_model_for_which_there_is_no_place_beside_a_load_evicts_none_until_that_has_ended(make_pool, want):
    pool = await make_pool(limits=NEVER_SILENT, max_loaded_models=2)
    await use(pool, want("idle"))
    loading = started(pool, want("a", load="stall"))
    await until(lambda: pool.waiting() == 1)
    waiting = started(pool, want("b"))
    await until(lambda: pool.waiting() == 2)
    await asyncio.sleep(0.5)
    assert names(pool) == ["idle:latest"]
    loading.cancel()
    await waiting
    assert sorted(names(pool)) == ["b:latest", "idle:latest"]


async def test_a_host_that_is_killed_beside_another_load_is_replaced_once_that_has_ended(make_pool, want, journal):
    """It may have been killed for the memory that both would take."""
    pool = await make_pool(limits=NEVER_SILENT)
    stuck = started(pool, want("a", load="stall"))
    await journal.until("loading")
    killed = started(pool, want("b", load="stall"))
    await journal.until("loading", times=2)
    os.kill(int([line for line in journal.lines() if line.startswith("load ")][1].split()[1]), signal.SIGKILL)
    await asyncio.sleep(0.5)
    assert journal.lines().count("loading") == 2
    stuck.cancel()
    await journal.until("loading", times=3)
    killed.cancel()


async def test_two_loads_without_memory_are_tried_again_one_after_the_other(make_pool, want):
    """Both wait to be alone, and neither for the other."""
    pool = await make_pool(limits=NEVER_SILENT)
    wanted = [want(name, load="memory above 4096", context_length=8192, automatic=("context_length",)) for name in "ab"]
    async with asyncio.timeout(60):
        await asyncio.gather(*(use(pool, each) for each in wanted))
    assert len(names(pool)) >= 1


async def test_a_load_that_shows_no_progress_does_not_keep_others_waiting(make_pool, want):
    pool = await make_pool(limits=Limits(max_silent_load_seconds=0.3), max_loaded_models=1)
    stuck = started(pool, want("a", load="stall"))
    await until(lambda: pool.waiting() == 1)
    async with asyncio.timeout(20):
        await use(pool, want("b"))
        await use(pool, want("c"))
    assert not stuck.done()
    stuck.cancel()
    await asyncio.wait({stuck})
    assert names(pool) == ["c:latest"]


async def test_a_slow_load_beside_others_leaves_no_more_models_than_allowed(make_pool, want, journal):
    pool = await make_pool(limits=Limits(max_silent_load_seconds=0.05), max_loaded_models=1)
    slow = started(pool, want("a", load="stall"))
    await until(lambda: pool.waiting() == 1)
    await use(pool, want("b"))
    journal.note("go on")
    await slow
    assert names(pool) == ["a:latest"]


async def test_waiting_for_a_busy_model_to_be_loaded_anew_blocks_no_other(make_pool, want):
    pool = await make_pool()
    async with pool.lease(want("a")) as lease:
        again = started(pool, want("a", context_length=2048))
        await until(lambda: pool.waiting() == 1)
        async with asyncio.timeout(20):
            await use(pool, want("b"))
        assert await text(lease.model, "x") == ["x"]
        assert not again.done()
    await again


async def test_waiting_for_room_blocks_no_reload_of_another(make_pool, want):
    pool = await make_pool(max_loaded_models=2)
    async with pool.lease(want("a"), keep_alive=1), pool.lease(want("b"), keep_alive=100) as lease:
        third = started(pool, want("c"))
        await until(lambda: pool.waiting() == 1)
        again = started(pool, want("b", context_length=2048))
        await until(lambda: pool.waiting() == 2)
        assert await text(lease.model, "x") == ["x"]
    async with asyncio.timeout(20):
        await asyncio.gather(third, again)


async def test_a_host_that_ignores_its_end_delays_nobody_for_long(make_pool, want, monkeypatch):
    monkeypatch.setattr("puna.runtime.loaded_models.CLOSING_SECONDS", 0.2)
    monkeypatch.setattr("puna.runtime.host_process.TERM_SECONDS", 600.0)
    pool = await make_pool(max_loaded_models=1)
    pid = await use(pool, want("a"), "@ignore")
    await use(pool, want("b"))
    assert names(pool) == ["b:latest"]
    os.kill(pid, signal.SIGKILL)  # it is still there


async def test_a_hung_host_lets_its_model_be_loaded_anew(make_pool, want):
    pool = await make_pool(limits=Limits(max_host_silence_seconds=1.0))
    hung = await begun(pool, want("a"))
    os.kill(pool.loaded()[0].pid, signal.SIGSTOP)
    again = started(pool, want("a", context_length=2048))
    async with asyncio.timeout(20):
        await use(pool, want("b"))
        with pytest.raises(BackendCrashedError, match="has not answered for 1 seconds"):
            await hung
        await again


async def test_a_host_that_dies_as_soon_as_it_is_loaded_is_not_kept(make_pool, want, monkeypatch):
    """Its death may be seen before the pool knows the model, which then must not stay for ever."""
    pool = await make_pool()
    launch = pool._launcher.launch

    async def dying(wanted, report, **told):
        launched = await launch(wanted, report, **told)
        os.kill(launched.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        return launched

    with monkeypatch.context() as patch:
        patch.setattr(pool._launcher, "launch", dying)
        with pytest.raises(BackendCrashedError):
            await use(pool, want())
    assert names(pool) == []
    await use(pool, want())


@pytest.mark.parametrize("beside", [300, 3000])
async def test_a_long_line_costs_each_of_its_members_little(make_pool, want, beside):
    """Whoever joins or leaves makes a bounded number of positions be told, however long the line is."""
    pool = await make_pool(max_queue=10_000, max_loaded_models=1)
    told = 0

    def hear(_):
        nonlocal told
        told += 1

    stuck = started(pool, want("a", load="stall"))
    await until(lambda: pool.waiting() == 1)
    waiting = [started(pool, want("b"), on_progress=hear) for _ in range(beside)]
    await until(lambda: pool.waiting() == beside + 1)
    assert told <= beside + 2 * NEAR_WAITERS
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert pool.waiting() == 1
    assert told <= 2 * beside + 10 * NEAR_WAITERS
    stuck.cancel()
    await asyncio.wait({stuck})


async def test_priority_goes_first(make_pool, want, journal):
    pool = await make_pool(max_loaded_models=1)
    stuck = started(pool, want("a", load="stall"))
    await until(lambda: pool.waiting() == 1)
    low = started(pool, want("b", context_length=100))
    await until(lambda: pool.waiting() == 2)
    high = started(pool, want("c", context_length=200), priority=1)
    await until(lambda: pool.waiting() == 3)
    stuck.cancel()
    await asyncio.gather(low, high)
    assert [line.split()[2] for line in journal.lines() if line.startswith("load ")][-2:] == ["200", "100"]


async def test_giving_up_ends_the_loading(make_pool, want, journal):
    pool = await make_pool()
    task = started(pool, want(load="stall"))
    await journal.until("loading")
    task.cancel()
    await asyncio.wait({task})
    await until(lambda: pool.waiting() == 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(journal.lines()[0].split()[1]), 0)


async def test_giving_up_does_not_end_a_loading_that_another_waits_for(make_pool, want, journal):
    pool = await make_pool()
    first, second = started(pool, want(load="slow")), started(pool, want(load="slow"))
    await journal.until("loading")
    first.cancel()
    await second
    assert journal.lines().count("loading") == 1


async def test_one_that_gives_up_in_the_queue_is_not_served(make_pool, want, journal):
    pool = await make_pool()
    stuck, waiting = started(pool, want("a", load="slow")), started(pool, want("b"))
    await until(lambda: pool.waiting() == 2)
    waiting.cancel()
    await stuck
    await until(lambda: pool.waiting() == 0)
    assert names(pool) == ["a:latest"]
    assert journal.lines().count("loading") == 1


async def test_leaving_in_the_moment_of_the_handover_keeps_no_hold(make_pool, want, monkeypatch):
    pool = await make_pool()
    task = started(pool, want())
    await until(lambda: pool._models.all())
    task.cancel()
    await asyncio.wait({task})
    await until(lambda: pool.loaded()[0].active == 0)
    assert await pool.unload(want().key)
    assert names(pool) == []


@pytest.mark.parametrize("how", ["refuse", "exit"])
async def test_a_failed_load_is_the_requests_error_alone(make_pool, want, how):
    pool = await make_pool()
    with pytest.raises(LoadFailedError):
        await use(pool, want("a", load=how))
    assert names(pool) == []
    await use(pool, want("b"))


async def test_no_room_with_a_context_that_nobody_asked_for_means_a_smaller_one(make_pool, want):
    pool = await make_pool()
    wanted = want(load="memory above 4096", context_length=8192, automatic=["context_length"])
    pid = await use(pool, wanted)
    assert pool.loaded()[0].context_length == 4096
    assert await use(pool, wanted) == pid


async def test_no_room_evicts_the_others_once(make_pool, want, journal):
    pool = await make_pool()
    await use(pool, want("a"))
    with pytest.raises(OutOfMemoryError):
        await use(pool, want("b", load="memory"))
    assert names(pool) == []
    assert journal.lines().count("loading") == 3
    with pytest.raises(OutOfMemoryError):
        await use(pool, want("b", load="memory"))
    assert journal.lines().count("loading") == 4


async def test_a_dead_host_costs_its_own_requests_and_the_next_loads_again(make_pool, want):
    pool = await make_pool()
    other = started(pool, want("other"), "@wait 0.3 a")
    await until(lambda: names(pool) == ["other:latest"])
    hurt = await begun(pool, want())
    queued = [started(pool, want(), "a") for _ in range(3)]
    pid = next(entry.pid for entry in pool.loaded() if entry.name == "m:latest")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BackendCrashedError, match="SIGKILL"):
        await hurt
    await asyncio.gather(other, *queued)
    async with pool.lease(want()) as lease:
        assert await text(lease.model, "again") == ["again"]


async def test_a_request_without_an_answer_yet_begins_anew_when_its_host_dies(make_pool, want, tmp_path):
    pool = await make_pool()
    told = []
    async with pool.lease(want(), on_progress=told.append, keep_alive=7) as lease:
        assert await text(lease.model, f"@prefill 2 0 @crash_once {tmp_path}/once a b") == ["a", "b"]
        assert await text(lease.model, "c") == ["c"]
        [entry] = pool.loaded()
        assert entry.active == 1
        os.kill(entry.pid, signal.SIGKILL)
        assert await lease.model.tokenize("a", add_special=False, parse_special=False) == [97]
    assert Loading(1.0) in told
    assert pool.loaded()[0].active == 0


async def test_a_request_that_kills_every_host_fails_at_the_second_one(make_pool, want, journal):
    pool = await make_pool()
    with pytest.raises(BackendCrashedError, match="SIGSEGV"):
        await use(pool, want(), "@crash SIGSEGV")
    assert journal.lines().count("loading") == 2


async def test_a_pool_that_ends_begins_nothing_anew(make_pool, want):
    pool = await make_pool()
    waiting = started(pool, want(), "@wait 60")
    await until(lambda: pool.loaded() and pool.loaded()[0].active == 1)
    await pool.__aexit__(None, None, None)
    with pytest.raises(BackendCrashedError, match="unloaded"):
        await waiting


async def test_a_dead_hosts_last_holder_does_not_harm_its_successor(make_pool, want):
    pool = await make_pool()
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(pool.lease(want(), keep_alive=0))
        os.kill(pool.loaded()[0].pid, signal.SIGKILL)
        await until(lambda: names(pool) == [])
        await use(pool, want(), keep_alive=60)
        assert await text(old.model, "a") == ["a"]
    assert names(pool) == ["m:latest"]


@pytest.fixture
def another(registry):
    """A second backend, of the same class."""
    scripted = registry.get("scripted")
    manifest = replace(scripted.usable, name="another", preference=-1)
    return Registry(lambda: [scripted, replace(scripted, name="another", manifest=manifest)])


async def test_another_backend_means_loading_anew(make_pool, another, want):
    pool = await make_pool(backends=another)
    async with pool.lease(want(backend="another")) as lease:
        assert lease.backend == "another"
    async with pool.lease(want(backend="scripted")) as lease:
        assert lease.backend == "scripted"


async def test_a_backend_that_is_not_installed(make_pool, want):
    pool = await make_pool()
    with pytest.raises(BackendNotFoundError, match="'magic' is not installed"):
        await use(pool, want(backend="magic"))


async def test_the_settings_may_name_the_backend(make_pool, another, want):
    pool = await make_pool(backends=another, default_backend="another")
    async with pool.lease(want()) as lease:
        assert lease.backend == "another"


async def test_leaving_the_pool_ends_everything(make_pool, want, journal):
    pool = await make_pool(max_loaded_models=2)
    await use(pool, want("a"))
    loading, waiting = started(pool, want("b", load="stall")), started(pool, want("c"))
    await journal.until("loading", times=2)
    await pool.__aexit__(None, None, None)
    for task in (loading, waiting):
        with pytest.raises(asyncio.CancelledError):
            await task
    pids = [int(line.split()[1]) for line in journal.lines() if line.startswith("load ")]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
