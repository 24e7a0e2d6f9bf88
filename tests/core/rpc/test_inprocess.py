"""The channel within the process behaves as one with a socket does, as far as the bridge can see."""

import asyncio
import hashlib

import grpc
import grpc.aio
import pytest
from tests.core.rpc.conftest import Stubs
from tests.core.serving.asking import until

from puna.rpc.batches import AHEAD
from puna.rpc.inprocess import InProcessChannel
from puna.rpc.server import add_services
from puna_client.v1 import generate_pb2, models_pb2, server_pb2


@pytest.fixture
async def inside(serving):
    async with InProcessChannel() as channel:
        add_services(serving, channel)
        yield Stubs(channel)


def request(model="plain", text="a", **fields):
    return generate_pb2.GenerateRequest(model=model, text=text, **fields)


async def test_answers_whole(inside, backend):
    backend.play("Hel", "lo")
    assert (await inside.generate.Generate(request())).text == "Hello"


async def test_answers_streamed(inside, backend):
    backend.play("Hel", "lo")
    messages = [message async for message in inside.generate.StreamGenerate(request())]
    assert [delta.text for message in messages for delta in message.deltas] == ["Hel", "lo"]
    assert messages[-1].HasField("done")


async def test_what_becomes_ready_before_it_is_read_makes_one_message(inside, backend):
    backend.play("a", "b", "c")
    call = inside.generate.StreamGenerate(request())
    # The sequence ends although its answer is not read.
    await until(lambda: call.untaken() is not None and call.untaken().HasField("done"))
    (message,) = [each async for each in call]
    assert [delta.text for delta in message.deltas] == ["a", "b", "c"]
    assert message.HasField("done")


async def test_a_reader_that_does_not_read_holds_the_answer_back(inside, backend):
    count = 2 * AHEAD + 1
    backend.play(*(f"{number} " for number in range(count)))
    call = inside.generate.StreamGenerate(request())
    await until(lambda: call.untaken() is not None and len(call.untaken().deltas) == AHEAD)
    for _ in range(20):
        await asyncio.sleep(0)
    assert backend.running
    assert len(call.untaken().deltas) == AHEAD
    messages = [each async for each in call]
    assert [delta.text for each in messages for delta in each.deltas] == [f"{number} " for number in range(count)]
    assert messages[-1].HasField("done")


@pytest.mark.parametrize("long", [False, True])
async def test_errors_are_those_of_the_socket(inside, stubs, long):
    metadata = (("puna-long-errors", "1"),) if long else ()
    name = "m" * 3000
    seen = []
    for each in (inside, stubs):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await each.generate.Generate(request(name), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as streamed:
            [message async for message in each.generate.StreamGenerate(request(name), metadata=metadata)]
        seen += [
            (error.code(), error.details(), dict(error.trailing_metadata())) for error in (raised.value, streamed.value)
        ]
    assert seen == [seen[0]] * 4
    assert seen[0][0] is not grpc.StatusCode.OK
    assert ("puna-error-bin" in seen[0][2]) == long


async def test_a_stream_that_its_reader_cancels_ends_the_sequence(inside, backend):
    backend.play("a", 60)
    call = inside.generate.StreamGenerate(request())
    async for message in call:
        if message.deltas:
            break
    assert call.cancel()
    await until(lambda: not backend.running)
    with pytest.raises(asyncio.CancelledError):
        await anext(call)


async def test_a_caller_that_is_cancelled_ends_the_sequence(inside, backend):
    backend.play("a", 60)
    asking = asyncio.create_task(inside.generate.Generate(request()))
    await until(lambda: backend.running)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    await until(lambda: not backend.running)


async def test_requests_are_listed_and_can_be_cancelled_by_others(inside, backend):
    backend.play(60)
    asking = asyncio.create_task(inside.generate.Generate(request()))
    await until(lambda: backend.running)
    (listed,) = (await inside.server.ListRequests(server_pb2.ListRequestsRequest())).requests
    await inside.server.CancelRequests(server_pb2.CancelRequestsRequest(ids=[listed.id]))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asking
    assert raised.value.code() is grpc.StatusCode.CANCELLED


async def test_leaving_the_channel_ends_its_calls(serving, backend):
    backend.play("a", 60)
    async with InProcessChannel() as channel:
        add_services(serving, channel)
        asking = asyncio.create_task(Stubs(channel).generate.Generate(request()))
        await until(lambda: backend.running)
    assert not backend.running
    with pytest.raises(grpc.aio.AioRpcError, match="the server is shutting down") as raised:
        await asking
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_ends_with_a_status_when_the_channel_is_left(serving, backend):
    backend.play("a", 60)

    async def read(call):
        async for _ in call:
            pass

    async with InProcessChannel() as channel:
        add_services(serving, channel)
        reading = asyncio.create_task(read(Stubs(channel).generate.StreamGenerate(request())))
        await until(lambda: backend.running)
    with pytest.raises(grpc.aio.AioRpcError, match="the server is shutting down"):
        await reading


async def test_what_others_cancel_ends_an_answer_with_a_status(inside, stubs, backend, monkeypatch):
    """A CancelledError that is not the caller's own must not pass for it: the caller would wait for ever."""

    async def cancelled_by_others(*_args, **_named):
        lost = asyncio.get_running_loop().create_future()
        lost.cancel()
        await lost

    backend.play("a", "b")
    monkeypatch.setattr("puna.serving.generate._done", cancelled_by_others)
    for each in (inside, stubs):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asyncio.wait_for(each.generate.Generate(request()), 10)
        assert raised.value.code() is grpc.StatusCode.INTERNAL
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            [message async for message in each.generate.StreamGenerate(request(), metadata=())]
        assert raised.value.code() is grpc.StatusCode.INTERNAL


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_uploads(inside):
    async def parts(digest):
        yield models_pb2.UploadBlobRequest(config={"digest": digest, "size_bytes": 5})
        yield models_pb2.UploadBlobRequest(chunk=b"he")
        yield models_pb2.UploadBlobRequest(chunk=b"llo")

    assert (await inside.models.UploadBlob(parts(digest_of(b"hello")))).created
    assert not (await inside.models.UploadBlob(parts(digest_of(b"hello")))).created
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await inside.models.UploadBlob(parts("sha256:" + "0" * 64))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_upload_that_breaks_off_raises_what_broke_it_and_stores_nothing(inside, serving):
    async def parts():
        yield models_pb2.UploadBlobRequest(config={"digest": digest_of(b"howdy"), "size_bytes": 5})
        yield models_pb2.UploadBlobRequest(chunk=b"ho")
        raise ConnectionResetError("the client is gone")

    with pytest.raises(ConnectionResetError):
        await inside.models.UploadBlob(parts())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await inside.models.StatBlob(models_pb2.StatBlobRequest(digest=digest_of(b"howdy")))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
