import asyncio
import math
import time

import grpc
import grpc.aio
import pytest

from puna.backend.v1 import backend_pb2 as wire
from puna.runtime.heartbeat import TICKS, HangTimeouts, Heartbeat, HeartbeatUnavailableError

SHORT = HangTimeouts(silence=0.3, step=0.3)


class Host:
    """Answers beats as told."""

    def __init__(self, *steps, delay=0.0, silent_after=math.inf):
        self.steps = list(steps)
        self.delay = delay
        self.silent_after = silent_after
        self.beats = 0
        self.messages = None

    async def beat(self):
        self.beats += 1
        await asyncio.sleep(self.delay if self.beats <= self.silent_after else 600)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return wire.HeartbeatResponse(step=step)


async def verdict(host, timeouts=SHORT):
    """Return what is wrong with a host, once that is seen."""
    heartbeat = Heartbeat(host.beat, timeouts, lambda: host.messages)
    return await asyncio.wait_for(heartbeat.wait_for_hang(), 60)


async def lives(host):
    """Return whether a host is still thought well of after more beats than a hang takes to be seen."""
    watching, end = asyncio.ensure_future(verdict(host)), host.beats + 2 * TICKS
    while host.beats < end and not watching.done():  # noqa: ASYNC110 (the host has no event)
        await asyncio.sleep(0.01)
    return watching.cancel()


def status(code):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


async def test_a_host_that_does_not_answer_hangs():
    host = Host(None, delay=60)
    assert await verdict(host) == "it has not answered for 0.3 seconds"
    assert host.beats == 1


async def test_a_host_that_stops_answering_later_hangs():
    host = Host(None, silent_after=3)
    assert await verdict(host) == "it has not answered for 0.3 seconds"
    assert host.beats == 4


async def test_work_without_a_step_hangs():
    assert await verdict(Host(1, 2, 3)) == "its work has made no step for 0.3 seconds"


async def test_slow_answers_count_as_time_without_a_step():
    timeouts = HangTimeouts(silence=10, step=0.3)
    assert await verdict(Host(5, delay=0.2), timeouts) == "its work has made no step for 0.3 seconds"


@pytest.mark.parametrize(
    "host", [Host(None), Host(*range(1000)), Host(1, None, *[1, None] * 100), Host(None, delay=0.1)]
)
async def test_rest_and_progress_are_no_hang(host):
    assert await lives(host)


async def test_an_error_of_the_hosts_own_is_a_sign_of_life():
    assert await lives(Host(status(grpc.StatusCode.INTERNAL)))


async def test_a_host_that_is_gone_is_not_judged():
    with pytest.raises(HeartbeatUnavailableError):
        await verdict(Host(status(grpc.StatusCode.UNAVAILABLE)))


@pytest.mark.parametrize(
    "answer",
    [status(grpc.StatusCode.UNIMPLEMENTED), status(grpc.StatusCode.INTERNAL), None],
    ids=["no", "error", "rest"],
)
async def test_a_host_that_tells_nothing_of_its_work_is_judged_by_its_messages(answer):
    host = Host(answer)
    assert await lives(host)
    host.messages = 3
    assert await verdict(host) == "its work has made no step for 0.3 seconds"
    watching = asyncio.ensure_future(verdict(host))
    for _ in range(15):
        await asyncio.sleep(0.05)
        host.messages += 1
    assert not watching.done()
    watching.cancel()


async def test_a_core_that_stood_still_itself_blames_nobody():
    """As after a laptop's sleep: clocks have gone on, and answers come soon after."""
    host = Host(1, 2, 3, 4, *range(5, 1000), delay=0.05)
    watching = asyncio.ensure_future(verdict(host))
    for _ in range(3):
        await asyncio.sleep(0.1)
        time.sleep(0.4)  # noqa: ASYNC251 (the standstill)
    beats = host.beats
    while host.beats < beats + 5:  # noqa: ASYNC110 (the host has no event)
        await asyncio.sleep(0.01)
    assert not watching.done()
    watching.cancel()


async def test_without_limits_nothing_is_a_hang():
    heartbeat = Heartbeat(Host(None, delay=60).beat, HangTimeouts(math.inf, math.inf), lambda: None)
    heartbeat._tick = 0.01
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(heartbeat.wait_for_hang(), 0.5)
