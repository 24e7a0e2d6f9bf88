"""Waiting has an end, closing hangs up, and only what has not begun is sent again."""

import asyncio

import pytest

from puna.backend import BackendError, ChatDelta, UnavailableError
from puna.backend.metadata import enter_request


async def test_a_stream_that_stalls_is_ended_and_closed(load, run, ask, front):
    loaded = await load("stalled", stall_timeout=0.3)
    seen = []
    with pytest.raises(BackendError, match=r"sent nothing for 0\.3 seconds in the middle of its answer"):
        async for event in loaded.generate(ask()):
            seen += [event]
    # Comments came all the while.
    assert [event.content for event in seen] == ["Hel", "lo"]
    await asyncio.wait_for(front.hung_up.wait(), 5)


async def test_an_answer_that_never_begins(load, run, ask, front):
    with pytest.raises(BackendError, match=r"sent nothing for 0\.3 seconds$"):
        await run(await load("silent", timeout=0.3), ask())
    await asyncio.wait_for(front.hung_up.wait(), 5)


async def test_closing_the_generator_hangs_up(load, ask, front):
    events = (await load("endless")).generate(ask())
    assert isinstance(await anext(events), ChatDelta)
    await events.aclose()
    await asyncio.wait_for(front.hung_up.wait(), 5)


async def test_cancelling_before_the_first_token_hangs_up(load, run, ask, front):
    task = asyncio.create_task(run(await load("silent"), ask()))
    await asyncio.wait_for(front.asked.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(front.hung_up.wait(), 5)


@pytest.mark.parametrize("model", ["flaky", "flaky-cut"])
async def test_a_request_is_sent_again_before_its_first_token(load, run, ask, front, model):
    front.failures_left = 2
    events = await run(await load(model, retries=2), ask())
    assert events[0] == ChatDelta(content="Hel")
    assert len(front.requests) == 3


async def test_nothing_is_sent_again_after_the_first_token(load, ask, front):
    loaded = await load("fault:cut", retries=2)
    with pytest.raises(BackendError):
        [event async for event in loaded.generate(ask())]
    assert len(front.requests) == 1


async def test_all_tries_together_have_one_deadline(load, run, ask, front):
    front.failures_left = 1
    loaded = await load("flaky-silent", retries=3, timeout=3)
    async with asyncio.timeout(20):
        with pytest.raises(UnavailableError, match=r"sent nothing for 3 seconds$"):
            await run(loaded, ask())
    assert len(front.requests) == 2


async def test_retries_end(load, run, ask, front):
    front.failures_left = 9
    with pytest.raises(BackendError, match="status 503"):
        await run(await load("flaky", retries=1), ask())
    assert len(front.requests) == 2


async def test_headers_that_the_operator_configured_win(load, run, ask, front):
    loaded = await load("hello", headers={"X-Request-ID": "fixed"})
    enter_request({"x-request-id": "client", "traceparent": "00-1-2-01"})
    await run(loaded, ask())
    headers = front.requests[-1][1]
    assert (headers.getall("x-request-id"), headers["traceparent"]) == (["fixed"], "00-1-2-01")


async def test_vectors_are_asked_for_with_the_trace(load, front):
    enter_request({"traceparent": "00-1-2-01"})
    await (await load("e")).embed(["a"])
    assert front.requests[-1][1]["traceparent"] == "00-1-2-01"
