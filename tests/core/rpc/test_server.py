import grpc
import pytest
from tests.core.rpc.conftest import Stubs

from puna.rpc.server import serving as running
from puna_client.v1 import generate_pb2, server_pb2


async def test_a_taken_port_is_told(serving, address):
    with pytest.raises(OSError, match=address):
        async with running(serving, address):
            pass


async def test_an_address_of_another_machine(serving):
    with pytest.raises(OSError, match="192\\.0\\.2\\.1"):
        async with running(serving, "192.0.2.1:0"):
            pass


async def test_a_unix_socket_beside_the_port(serving, tmp_path):
    path = tmp_path / "s"
    path.touch()  # as a server leaves it that was killed
    async with (
        running(serving, "127.0.0.1:0", uds=lambda port: path),
        grpc.aio.insecure_channel(f"unix:{path}") as channel,
    ):
        answer = await Stubs(channel).server.GetServerInfo(server_pb2.GetServerInfoRequest())
        assert answer.ollama_version


async def test_big_messages_pass(stubs, backend):
    asked = generate_pb2.GenerateRequest(model="plain", text="y" * (8 << 20), raw=True, render_only=True)
    answer = await stubs.generate.Generate(asked)
    assert len(answer.rendered.text) == 8 << 20


async def test_stopping_ends_streams(serving, backend):
    backend.play("a", 60)
    async with running(serving, "127.0.0.1:0") as bound:
        channel = grpc.aio.insecure_channel(bound)
        call = Stubs(channel).generate.StreamGenerate(generate_pb2.GenerateRequest(model="plain", text="a"))
        await call.read()
    assert backend.running == 0
    await channel.close()
