import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tests.core.rpc.conftest import Stubs

from puna.rpc.server import SERVICES
from puna.rpc.server import serving as running
from puna.v1 import generate_pb2, rank_pb2, server_pb2, tokenize_pb2


async def test_a_taken_port_is_told(serving, address):
    with pytest.raises(OSError, match=address):
        async with running(serving, address):
            pass


async def test_an_address_of_another_machine(serving):
    with pytest.raises(OSError, match="192\\.0\\.2\\.1"):
        async with running(serving, "192.0.2.1:0"):
            pass


async def test_a_unix_socket_beside_the_port(serving, tmp_path):
    path = str(tmp_path / "s")
    async with (
        running(serving, "127.0.0.1:0", uds=path),
        grpc.aio.insecure_channel(f"unix:{path}") as channel,
    ):
        answer = await Stubs(channel).server.GetServerInfo(server_pb2.GetServerInfoRequest())
        assert answer.rest_version


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health(stubs, service):
    stub = health_pb2_grpc.HealthStub(stubs.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(stubs, version):
    call = stubs.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {each.name for each in (await call.read()).list_services_response.service}
    assert listed > {*SERVICES, "grpc.health.v1.Health"}
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="puna.v1.ChatService"))
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.done_writing()
    call.cancel()


async def test_info(stubs):
    answer = await stubs.server.GetServerInfo(server_pb2.GetServerInfoRequest())
    assert [(each.name, list(each.formats), each.error) for each in answer.backends] == [("played", ["gguf"], "")]


async def test_requests_are_listed_and_can_be_cancelled(stubs, backend):
    backend.play("a", 60)
    call = stubs.generate.StreamGenerate(generate_pb2.GenerateRequest(model="plain", text="a"))
    async for message in call:
        if message.deltas:
            break
    (found,) = (await stubs.server.ListRequests(server_pb2.ListRequestsRequest())).requests
    assert (found.model, found.method, found.output_tokens, found.queue_position) == ("plain", "StreamGenerate", 1, 0)
    none = await stubs.server.ListRequests(server_pb2.ListRequestsRequest(model="talker"))
    assert list(none.requests) == []
    cancelled = await stubs.server.CancelRequests(server_pb2.CancelRequestsRequest(ids=["nonsense", found.id]))
    assert list(cancelled.ids) == [found.id]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asyncio.wait_for(anext(aiter(call)), 5)
    assert raised.value.code() is grpc.StatusCode.CANCELLED
    assert backend.running == 0
    assert list((await stubs.server.ListRequests(server_pb2.ListRequestsRequest())).requests) == []


async def test_load_is_watched(stubs, backend):
    backend.play("a", 60)
    call = stubs.generate.StreamGenerate(generate_pb2.GenerateRequest(model="plain", text="a"))
    async for message in call:
        if message.deltas:
            break
    watching = stubs.server.WatchLoad(server_pb2.WatchLoadRequest(interval={"nanos": 1}))
    for _ in range(2):
        (model,) = (await watching.read()).models
        assert (model.model, model.active_requests) == ("plain:latest", 1)
    watching.cancel()
    call.cancel()


async def test_tokens_there_and_back(stubs):
    answer = await stubs.tokenize.Tokenize(tokenize_pb2.TokenizeRequest(model="plain", text="aé", with_pieces=True))
    assert list(answer.pieces) == [b"a", b"\xc3", b"\xa9"]
    back = await stubs.tokenize.Detokenize(
        tokenize_pb2.DetokenizeRequest(model="plain", token_ids=answer.token_ids[:2])
    )
    assert (back.text, back.raw) == ("a\ufffd", b"a\xc3")


async def test_ranking(stubs, backend):
    backend.ranks = True
    answer = await stubs.rank.Rerank(rank_pb2.RerankRequest(model="plain", query="b", documents=["a", "b"]))
    assert [(each.index, each.score) for each in answer.results] == [(1, 1.0), (0, 0.0)]


async def test_scoring_is_not_there_yet(stubs):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.rank.Score(rank_pb2.ScoreRequest(model="plain", prompt="a", candidates=["b"]))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


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
