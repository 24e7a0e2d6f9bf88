"""Connections to nodes whose first lines are odd; tests/core/node has nodes that work."""

import asyncio

import pytest

from puna.process import cluster_certificates as certificates
from puna.process.cluster_tls import core_context, node_context
from puna.runtime import tunnel
from puna.runtime.errors import NodeError
from puna.runtime.tunnel import Tunnels


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    certificates.make(folder)
    return folder


@pytest.fixture
async def answering(cluster):
    """Starts a node that answers every first line with the same bytes."""
    servers = []

    async def start(answer):
        async def serve(reader, writer):
            await reader.readline()
            writer.write(answer)
            await writer.drain()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=node_context(cluster / "node"))
        servers.append(server)
        host, port = server.sockets[0].getsockname()
        return Tunnels(f"{host}:{port}", core_context(cluster / "core"))

    yield start
    for server in servers:
        server.close()


async def test_what_follows_the_answer_is_not_lost(answering, short_path):
    tunnels = await answering(b"ok\nhello")
    close = await tunnels.listen(short_path / "s", "grpc 1")
    reader, writer = await asyncio.open_unix_connection(str(short_path / "s"))
    assert await asyncio.wait_for(reader.readexactly(5), 30) == b"hello"
    tunnels.abort()
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
    close()
    assert not (short_path / "s").exists()


async def test_no_socket_is_no_error(answering):
    tunnels = await answering(b"none\n")
    assert await tunnels.open_frames("run 1", lambda: None) is None


@pytest.mark.parametrize("answer", [b"go away\n", b"x" * 1000])
async def test_another_answer_is_an_error(answering, answer):
    tunnels = await answering(answer)
    with pytest.raises(NodeError, match="refuses the connection: "):
        await tunnels.check()


async def test_silence_is_an_error(answering, monkeypatch):
    monkeypatch.setattr(tunnel, "OPEN_SECONDS", 0.3)
    tunnels = await answering(b"")
    with pytest.raises(NodeError, match=r"does not answer within 0.3 s"):
        await tunnels.check()


async def test_nothing_is_opened_after_the_end(answering):
    tunnels = await answering(b"ok\n")
    await tunnels.check()
    tunnels.abort()
    with pytest.raises(NodeError, match="is not connected"):
        await tunnels.check()
