"""Connections of gRPC clients: pings in both directions, and ages. Clients are real, or sockets with raw frames."""

import asyncio
import contextlib
import struct
from dataclasses import replace

import grpc
import pytest
from tests.core.rpc.conftest import Stubs
from tests.hostile.wire import call_frames, ping_frame

from puna.rpc.server import serving as running
from puna.settings import Settings
from puna.v1 import generate_pb2, server_pb2

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
        debug = await client.frame(GOAWAY)
        assert debug is not None
        assert debug[8:] == b"too_many_pings"


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
