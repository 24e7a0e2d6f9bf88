"""Models of one backend in one host process."""

import asyncio
import os
import signal
from dataclasses import replace

import pytest

from puna.backend import SequenceRequest, TextDelta
from puna.errors import BackendCrashedError, LoadFailedError


@pytest.fixture
def shared(registry):
    backend = registry.get("scripted")
    host = replace(backend.usable.host, shared=True)
    return replace(backend, manifest=replace(backend.usable, host=host))


async def text(model, prompt):
    events = [event async for event in model.generate(SequenceRequest(prompt=prompt))]
    return [event.text for event in events if isinstance(event, TextDelta)]


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_models_of_a_shared_backend_have_one_process(load_hosted, shared, registry):
    one, two, own = await load_hosted(shared), await load_hosted(shared), await load_hosted(registry.get("scripted"))
    assert one.pid == two.pid != own.pid
    answers = await asyncio.gather(text(one, "a @wait 0.05 b"), text(two, "c @wait 0.05 d"), one.embed(["x"]))
    assert answers[:2] == [["a", "b"], ["c", "d"]]
    assert await two.tokenize("a", add_special=False, parse_special=False) == [97]


async def test_models_loaded_at_once_start_one_process(load_hosted, shared):
    models = await asyncio.gather(*(load_hosted(shared) for _ in range(4)))
    assert len({each.pid for each in models}) == 1


async def test_the_process_ends_with_its_last_model(load_hosted, shared, journal):
    one, two = await load_hosted(shared), await load_hosted(shared)
    await one.aclose()
    await journal.until("closed")
    assert runs(two.pid)
    assert await text(two, "a") == ["a"]
    with pytest.raises(BackendCrashedError, match="the model was unloaded"):
        await text(one, "a")
    await two.aclose()
    assert not runs(two.pid)
    three = await load_hosted(shared)
    assert three.pid != two.pid
    assert await text(three, "b") == ["b"]


async def test_a_model_is_freed_after_its_sequences(load_hosted, shared, journal):
    one, two = await load_hosted(shared), await load_hosted(shared)
    running = asyncio.create_task(text(one, "@endless"))
    await journal.until("start")
    await one.aclose()
    with pytest.raises(BackendCrashedError):
        await running
    await journal.until("closed")
    lines = journal.lines()
    assert lines.index("end") < lines.index("closed")
    assert await text(two, "a") == ["a"]


async def test_a_crash_takes_all_models_and_the_next_load_starts_anew(load_hosted, shared):
    dead = asyncio.Event(), asyncio.Event()
    one = await load_hosted(shared, on_death=dead[0].set)
    two = await load_hosted(shared, on_death=dead[1].set)
    running = asyncio.create_task(text(two, "a @wait 60"))
    await asyncio.sleep(0.1)
    os.kill(one.pid, signal.SIGKILL)
    for call in (text(one, "a"), running):
        with pytest.raises(BackendCrashedError):
            await call
    async with asyncio.timeout(10):
        await asyncio.gather(*(each.wait() for each in dead))
    three = await load_hosted(shared)
    assert three.pid != one.pid
    assert await text(three, "a") == ["a"]


@pytest.mark.parametrize("how", ["refuse", "raise", "memory"])
async def test_a_load_that_fails_leaves_the_others_alone(load_hosted, shared, how):
    one = await load_hosted(shared)
    with pytest.raises(LoadFailedError):
        await load_hosted(shared, load=how)
    assert await text(one, "a") == ["a"]


async def test_a_load_that_stalls_leaves_the_others_alone(load_hosted, shared):
    one = await load_hosted(shared)
    with pytest.raises(LoadFailedError, match="timed out"):
        await load_hosted(shared, stall_seconds=0.3, load="stall")
    assert await text(one, "a") == ["a"]


async def test_a_load_that_is_given_up_leaves_the_others_alone(load_hosted, shared, journal):
    one = await load_hosted(shared)
    loading = asyncio.create_task(load_hosted(shared, load="stall"))
    await journal.until("loading", times=2)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert await text(one, "a") == ["a"]


async def test_a_first_load_that_fails_leaves_no_process(load_hosted, shared, short_path):
    with pytest.raises(LoadFailedError):
        await load_hosted(shared, load="refuse")
    assert list(short_path.iterdir()) == []


async def test_a_backend_that_was_changed_gets_a_new_process(load_hosted, shared):
    one = await load_hosted(shared)
    upgraded = replace(shared, version="2.0")
    two, three = await load_hosted(upgraded), await load_hosted(upgraded)
    assert one.pid != two.pid == three.pid
    assert await text(one, "a") == ["a"]


@pytest.fixture
def sharing(registry):
    """A backend that lets models share their weights."""
    backend = registry.get("scripted")
    host = replace(backend.usable.host, shares_weights=True)
    return replace(backend, manifest=replace(backend.usable, host=host))


async def test_models_of_the_same_weights_have_one_process(load_hosted, sharing, registry):
    plain, one, two = [await load_hosted(sharing, *adapters) for adapters in ((), ("1",), ("1", "2"))]
    longer = await load_hosted(sharing, "3", context_length=77)
    assert plain.pid == one.pid == two.pid == longer.pid
    assert longer.facts.context_length == 77
    others = [
        await load_hosted(sharing, "1", path="/another"),
        await load_hosted(sharing, "1", use_mmap=True),
        await load_hosted(sharing, "1", size_bytes=5),
        await load_hosted(sharing, "1", alone=True),
        await load_hosted(registry.get("scripted"), "1"),
        await load_hosted(replace(sharing, version="2.0"), "1"),
    ]
    assert len({each.pid for each in (plain, *others)}) == 1 + len(others)
    answers = await asyncio.gather(*(text(each, f"{each.pid} @wait 0.05 b") for each in (plain, one, two, *others)))
    assert all(len(each) == 2 for each in answers)


async def test_either_of_two_models_of_the_same_weights_may_end_first(load_hosted, sharing, journal):
    for number in (0, 1):
        models = [await load_hosted(sharing, each) for each in ("1", "2")]
        first, second = models.pop(number), models.pop()
        running = asyncio.create_task(text(first, "@endless"))
        await journal.until("start")
        await first.aclose()
        with pytest.raises(BackendCrashedError, match="unloaded"):
            await running
        assert await text(second, "a") == ["a"]
        third = await load_hosted(sharing, "1")
        assert third.pid == second.pid
        await second.aclose()
        assert await text(third, "a") == ["a"]
        await third.aclose()
        assert not runs(third.pid)


async def test_a_crash_takes_the_models_of_the_same_weights(load_hosted, sharing):
    dead = asyncio.Event(), asyncio.Event()
    one = await load_hosted(sharing, "1", on_death=dead[0].set)
    await load_hosted(sharing, "2", on_death=dead[1].set)
    os.kill(one.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await asyncio.gather(*(each.wait() for each in dead))
    three = await load_hosted(sharing, "1")
    assert three.pid != one.pid
    assert await text(three, "a") == ["a"]


@pytest.mark.parametrize(("how", "stall_seconds"), [("refuse", 30.0), ("memory", 30.0), ("stall", 0.3)])
async def test_a_load_that_fails_leaves_models_of_the_same_weights_alone(
    load_hosted, sharing, how, stall_seconds, journal
):
    # The options are a part of what models must have in common, so a file says what becomes of each load.
    one = await load_hosted(sharing, "1")
    with pytest.raises(LoadFailedError):
        await load_hosted(sharing, f"@{how}", stall_seconds=stall_seconds)
    assert await text(one, "a") == ["a"]
    two = await load_hosted(sharing, "2")
    assert two.pid == one.pid
