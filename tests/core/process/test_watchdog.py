"""The watchdog names the place where the event loop stands still, and blames no loop that is idle or waits."""

import asyncio
import logging
import re
import threading
import time

import pytest

from puna.process import watchdog
from puna.process.watchdog import BUSY, watching

ALLOWED = 0.1


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(watchdog, "WARNING_INTERVAL", 0.0)
    caplog.set_level(logging.WARNING, logger="puna.process.watchdog")
    return lambda: [record.getMessage() for record in caplog.records if BUSY in record.getMessage()]


def spin(seconds):
    """Use CPU time, whatever else the machine does."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


async def test_a_turn_that_takes_too_long_is_logged_with_its_place(warnings):
    with watching(ALLOWED):
        await asyncio.sleep(0)
        spin(0.5)
        await asyncio.sleep(2 * ALLOWED)
    assert any(re.search(rf"{BUSY} for 0\.\d+ s: \S*test_watchdog:\d+ spin < \S*test_watchdog", e) for e in warnings())


async def test_one_call_into_native_code_is_logged(warnings):
    numbers = range(40_000_000)
    with watching(ALLOWED):
        await asyncio.sleep(ALLOWED)
        sum(numbers)
        sum(numbers)
        await asyncio.sleep(2 * ALLOWED)
    assert warnings()


async def test_nobody_is_blamed_for_short_turns_and_for_waiting(warnings):
    with watching(ALLOWED):
        for _ in range(30):
            spin(ALLOWED / 10)
            await asyncio.sleep(0)
        await asyncio.sleep(3 * ALLOWED)
        time.sleep(3 * ALLOWED)  # noqa: ASYNC251 - as on a machine that gives no CPU
        await asyncio.to_thread(spin, 3 * ALLOWED)
    assert warnings() == []


async def test_warnings_are_few(warnings, monkeypatch):
    monkeypatch.setattr(watchdog, "WARNING_INTERVAL", 60.0)
    with watching(ALLOWED):
        for _ in range(4):
            spin(2.5 * ALLOWED)
            await asyncio.sleep(ALLOWED)
    assert len(warnings()) == 1


@pytest.mark.parametrize("allowed", [ALLOWED, float("inf")])
async def test_it_ends_with_its_block_and_infinity_starts_none(allowed):
    with watching(allowed):
        names = [each.name for each in threading.enumerate()]
        assert ("watchdog" in names) == (allowed == ALLOWED)
    end = time.monotonic() + 5
    while any(each.name == "watchdog" for each in threading.enumerate()):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
