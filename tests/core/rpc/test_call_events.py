import asyncio

import grpc
import grpc.aio
import pytest

from puna import events
from puna.rpc.call_events import reporting


async def fine(request, context):
    return request


async def refusing(request, context):
    await context.abort(grpc.StatusCode.NOT_FOUND, "no")


async def endless(request, context):
    yield request
    await asyncio.sleep(60)


HANDLERS = {
    "Fine": grpc.unary_unary_rpc_method_handler(fine),
    "Refusing": grpc.unary_unary_rpc_method_handler(refusing),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
}


@pytest.fixture
async def channel():
    """A channel to a server with these methods."""
    server = grpc.aio.server()
    handlers = reporting("test.Service", HANDLERS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.fixture
def heard():
    """The events of the calls, as a queue."""
    found = asyncio.Queue()
    stop = events.subscribe(events.CallEnded, found.put_nowait)
    yield found
    stop()


async def test_each_call_is_reported_with_its_code(channel, heard):
    assert await channel.unary_unary("/test.Service/Fine")(b"x") == b"x"
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.unary_unary("/test.Service/Refusing")(b"x")
    stream = channel.unary_stream("/test.Service/Endless")(b"x")
    await stream.read()
    stream.cancel()
    ended = [await asyncio.wait_for(heard.get(), 5) for _ in range(3)]
    assert [(each.service, each.method, each.code) for each in ended] == [
        ("test.Service", "Fine", "OK"),
        ("test.Service", "Refusing", "NOT_FOUND"),
        ("test.Service", "Endless", "CANCELLED"),
    ]
    assert all(0 <= each.seconds < 5 for each in ended)


async def test_without_a_listener_calls_are_served_as_well(channel):
    assert await channel.unary_unary("/test.Service/Fine")(b"x") == b"x"
