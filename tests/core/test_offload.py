"""Light work runs at once; heavy work runs in a thread, beside the loop, and ends when its caller has gone."""

import asyncio
import gc
import threading

import pytest

from puna.offload import HEAVY, LIGHT, OffloadCancelledError, check_cancelled, offload_if_heavy, weight_of_text


@pytest.mark.parametrize(("weight", "same"), [(0, True), (LIGHT, True), (LIGHT + 1, False), (HEAVY, False)])
async def test_where_it_runs(weight, same):
    there, collecting = await offload_if_heavy(weight, lambda: (threading.get_ident(), gc.isenabled()))
    assert (there == threading.get_ident()) == same
    assert collecting == same
    assert gc.isenabled()


async def test_arguments_results_and_errors_pass():
    assert await offload_if_heavy(HEAVY, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await offload_if_heavy(HEAVY, divmod, 7, 0)


async def test_the_loop_turns_meanwhile():
    gate = threading.Event()
    waiting = asyncio.ensure_future(offload_if_heavy(HEAVY, gate.wait, 10))
    await asyncio.sleep(0.01)
    gate.set()
    assert await waiting


@pytest.mark.parametrize("weight", [LIGHT + 1, HEAVY])
async def test_work_that_nobody_waits_for_ends(weight):
    begun, ended = threading.Event(), threading.Event()

    def work():
        begun.set()
        try:
            while True:
                check_cancelled()
        except OffloadCancelledError:
            ended.set()
            raise

    task = asyncio.ensure_future(offload_if_heavy(weight, work))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 5)
    check_cancelled()  # no caller has gone here


async def test_short_work_does_not_wait_for_long_work():
    gate = threading.Event()
    long = [asyncio.ensure_future(offload_if_heavy(HEAVY, gate.wait, 10)) for _ in range(4)]
    assert await asyncio.wait_for(offload_if_heavy(LIGHT + 1, int, "7"), 5) == 7
    gate.set()
    await asyncio.gather(*long)


def test_values_weigh_at_least_one():
    assert weight_of_text(b'{"a":[1,{},[]]}') >= 5
    assert weight_of_text(b"a" * 1_000_000) >= 1000
