import asyncio

import pytest

from puna.host.plugin_call import Raised, Work, attempt


async def answer():
    return 7


def raising(error):
    async def call():
        await asyncio.sleep(0)
        raise error

    return call


async def test_an_answer_is_returned():
    assert await attempt(answer) == 7


@pytest.mark.parametrize(
    "error", [ValueError("a"), KeyboardInterrupt(), SystemExit(3), GeneratorExit(), asyncio.CancelledError()]
)
async def test_an_exception_of_any_kind_is_a_value(error):
    assert await attempt(raising(error)) == Raised(error)


async def test_what_is_raised_before_the_first_step_is_a_value_too():
    def call():
        raise KeyboardInterrupt

    assert isinstance((await attempt(call)).error, KeyboardInterrupt)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_call_that_cancels_itself_is_not_cancelled_by_its_waiter(waits):
    async def call():
        asyncio.current_task().cancel()
        if waits:
            await asyncio.sleep(0)

    assert isinstance((await attempt(call)).error, asyncio.CancelledError)


async def test_cancelling_the_waiter_cancels_the_call_and_waits_for_its_end():
    begun, done = asyncio.Event(), []

    async def call():
        try:
            begun.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
            done.append("cleaned up")

    waiting = asyncio.create_task(attempt(call))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert done == ["cleaned up"]


def test_the_oldest_step_changes_only_with_the_work_that_waits_longest():
    work = Work()
    assert work.oldest_step() is None
    first, second = work.begin(), work.begin()
    seen = work.oldest_step()
    for _ in range(3):
        work.step(second)
    assert work.oldest_step() == seen
    work.step(first)
    assert work.oldest_step() > seen
    seen = work.oldest_step()
    work.end(second)
    assert work.oldest_step() > seen
    work.end(first)
    assert work.oldest_step() is None
