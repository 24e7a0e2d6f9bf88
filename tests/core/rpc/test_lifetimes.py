"""Connections of gRPC clients: pings in both directions, and ages. Clients are real, or sockets with raw frames."""

import asyncio
import contextlib
import gzip
import shutil
import struct
from dataclasses import replace

import grpc
import pytest
from tests.core.rpc.conftest import Stubs
from tests.core.serving.conftest import make
from tests.core.serving.conftest import stocked as shared
from tests.hostile.wire import call_frames, ping_frame

from puna.limits import Limits
from puna.model_name import ModelName
from puna.models.store import ModelStore
from puna.rpc.server import serving as running
from puna.settings import Settings
from puna_client.v1 import generate_pb2, models_pb2, server_pb2

__all__ = ["shared"]
PING, GOAWAY, ACK = 6, 7, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"


class Raw:
    """A connection of HTTP/2 that answers nothing by itself."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def frame(self, kind, flags=0):
        """Return the payload of the next frame of a kind, or None once the server has closed the connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3]))
                if (head[3], head[4]) == (kind, flags):
                    return payload
        return None


@contextlib.asynccontextmanager
async def connected(address):
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


@pytest.fixture
def stocked(shared, tmp_path):
    """A store with a model whose description is large."""
    shutil.copytree(shared.root, tmp_path / "models")
    store = ModelStore(tmp_path / "models")
    make(store, "large", base="plain", licenses=["x" * (4 << 20)])
    return store


@pytest.fixture
def settings():
    return Settings(keepalive_time=1.0, keepalive_timeout=1.0, connection_age=3.0)


@pytest.mark.parametrize("call", [b"", call_frames(1, "/grpc.health.v1.Health/Watch", ends=True)], ids=["idle", "call"])
async def test_a_client_may_ping_again_and_again_in_silence(serving, monkeypatch, call):
    monkeypatch.setattr("puna.rpc.server.PINGS", 0.2)
    serving.settings = Settings()
    async with running(serving, "127.0.0.1:0") as address, connected(address) as client:
        client.writer.write(call)
        for _ in range(10):
            await asyncio.sleep(0.25)
            client.writer.write(ping_frame())
            assert await client.frame(PING, ACK) == b"12345678"
        for _ in range(10):
            client.writer.write(ping_frame())
        # The server closes the connection while pings are on their way, and its reset may overtake the GOAWAY.
        debug = await client.frame(GOAWAY)
        assert debug is None or debug[8:] == b"too_many_pings"


async def test_an_idle_client_is_pinged_and_dropped_if_it_does_not_answer(serving):
    async with running(serving, "127.0.0.1:0") as address, connected(address) as client, asyncio.timeout(10):
        assert await client.frame(PING) is not None
        assert await client.frame(255) is None


async def test_a_connection_of_its_age_takes_no_more_calls_and_ends_none(serving, backend):
    serving.settings = replace(serving.settings, connection_age=0.5)
    backend.play(*"abcdefgh", 0.3)
    async with running(serving, "127.0.0.1:0") as address, connected(address) as client:
        async with asyncio.timeout(5):
            assert struct.unpack(">i", (await client.frame(GOAWAY))[:4]) is not None
        async with grpc.aio.insecure_channel(address) as channel:
            stubs = Stubs(channel)
            messages = [
                each
                async for each in stubs.generate.StreamGenerate(generate_pb2.GenerateRequest(model="plain", text="a"))
            ]
            assert messages[-1].HasField("done")
            assert await stubs.server.GetServerInfo(server_pb2.GetServerInfoRequest())


@pytest.mark.parametrize(
    ("accepted", "path", "compressed"),
    [
        (b"gzip", "GetModel", 1),
        (b"identity", "GetModel", 0),
        (b"gzip", "StatBlob", 0),
    ],
)
async def test_texts_are_compressed_for_clients_elsewhere_that_accept_it(
    serving, monkeypatch, accepted, path, compressed
):
    monkeypatch.setattr("puna.rpc.writing._LOCAL", ("nowhere",))
    digest = "sha256:" + serving._store.get(ModelName.parse("plain")).manifest.layers[0].digest.removeprefix("sha256:")
    messages = {
        "GetModel": models_pb2.GetModelRequest(name="plain"),
        "StatBlob": models_pb2.StatBlobRequest(digest=digest),
    }
    headers = ((b"grpc-accept-encoding", accepted),)
    call = call_frames(
        1, f"/puna.v1.ModelsService/{path}", messages[path].SerializeToString(), ends=True, headers=headers
    )
    async with running(serving, "127.0.0.1:0") as address, connected(address) as client, asyncio.timeout(10):
        client.writer.write(call)
        answer = await client.frame(0)
        assert answer[0] == compressed
        if compressed:
            assert (
                "general.architecture"
                in models_pb2.GetModelResponse.FromString(gzip.decompress(answer[5:])).model_info_json
            )


async def test_large_answers_that_are_not_read_are_bounded(stocked, serving):
    serving.settings = Settings(limits=Limits(max_bodies_bytes=20 << 20))
    name = models_pb2.GetModelRequest(name="large")
    frames = [call_frames(n, "/puna.v1.ModelsService/GetModel", name.SerializeToString(), ends=True) for n in (1, 3)]
    options = (("grpc.max_receive_message_length", -1),)
    async with running(serving, "127.0.0.1:0") as address, grpc.aio.insecure_channel(address, options) as channel:
        stubs = Stubs(channel)
        async with connected(address) as client:
            client.writer.write(b"".join(frames))
            assert await client.frame(1, 4)
            assert await client.frame(1, 4)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stubs.models.GetModel(name)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            # The messages of a stream are small, and are not counted.
            streamed = stubs.models.StreamModel(name)
            assert len([each async for each in streamed]) > 4
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    assert len((await stubs.models.GetModel(name)).license) == 4 << 20
                    break
                await asyncio.sleep(0.05)
