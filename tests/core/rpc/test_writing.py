import asyncio

import pytest

from puna.errors import ClientStalledError
from puna.rpc.writing import AnswerContext
from puna_client.v1 import generate_pb2

MESSAGE = generate_pb2.StreamGenerateResponse()


class Client:
    """A gRPC context whose client reads a message when the test lets it."""

    def __init__(self):
        self.reads = asyncio.Event()
        self.reads.set()
        self.written = 0
        self.code = None

    def peer(self):
        return "ipv4:127.0.0.1:1"

    def disable_next_message_compression(self):
        pass

    async def write(self, message):
        await self.reads.wait()
        self.written += 1

    async def abort(self, code, *_):
        self.code = code
        raise RuntimeError("aborted")


async def test_a_client_that_does_not_read_is_given_up_and_gets_no_status():
    client = Client()
    answer = AnswerContext(client, 0.05)
    await answer.write(MESSAGE)
    client.reads.clear()
    with pytest.raises(ClientStalledError):
        await answer.write(MESSAGE)
    assert asyncio.current_task().cancelling() == 0
    with pytest.raises(asyncio.CancelledError):
        await answer.abort("UNAVAILABLE")
    assert (client.written, client.code) == (1, None)


class Clock:
    """The clock and the timers of an event loop, which the test moves on."""

    def __init__(self):
        self.now = 0.0
        self.timers = []

    def time(self):
        return self.now

    def call_at(self, when, call):
        self.timers.append((when, call))

    async def pass_seconds(self, seconds):
        self.now += seconds
        due = [each for each in self.timers if each[0] <= self.now]
        self.timers = [each for each in self.timers if each[0] > self.now]
        for _, call in due:
            call()
        await asyncio.sleep(0)


async def test_a_client_that_reads_each_message_in_time_may_take_long_for_all():
    client, clock = Client(), Clock()
    answer = AnswerContext(client, 10.0)
    answer._loop = clock
    for _ in range(8):
        client.reads.clear()
        writing = asyncio.create_task(answer.write(MESSAGE))
        await asyncio.sleep(0)
        clock.timers = clock.timers or pytest.fail("nothing watches")
        await clock.pass_seconds(9.0)
        client.reads.set()
        await writing
        await clock.pass_seconds(9.0)
    assert client.written == 8
    with pytest.raises(RuntimeError, match="aborted"):
        await answer.abort("INTERNAL")
    assert client.code == "INTERNAL"


async def test_pauses_between_messages_do_not_count():
    client = Client()
    answer = AnswerContext(client, 0.05)
    await answer.write(MESSAGE)
    await asyncio.sleep(0.15)
    await answer.write(MESSAGE)
    assert client.written == 2


async def test_a_cancellation_by_the_client_stays_one():
    client = Client()
    client.reads.clear()
    writing = asyncio.create_task(AnswerContext(client, 60.0).write(MESSAGE))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert writing.cancelled()


async def test_nothing_is_interrupted_after_the_end_of_the_call():
    answer = AnswerContext(Client(), 0.02)
    await answer.write(MESSAGE)
    answer.close()
    await asyncio.sleep(0.1)
    assert asyncio.current_task().cancelling() == 0
