import asyncio
import json

import grpc
import pytest

from puna.settings import REST_VERSION
from puna_client.v1 import generate_pb2, server_pb2


async def test_info(stubs):
    answer = await stubs.server.GetServerInfo(server_pb2.GetServerInfoRequest())
    assert [(each.name, list(each.formats), each.error) for each in answer.backends] == [("played", ["gguf"], "")]
    (played,) = answer.backends
    assert (played.contract_version, list(played.capabilities)) == (
        1,
        ["tokenizer", "logprobs", "embeddings", "rerank", "vision"],
    )
    assert "lark" in played.constraints
    assert "top_k" in played.sampling
    assert played.manifest_path.endswith("/puna_played.backend.toml")
    options = json.loads(played.options_schema_json)
    assert options["properties"] == {"a": {"type": "integer", "minimum": 0, "maximum": 9, "x-scope": "request"}}
    assert options["additionalProperties"] is False


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


async def test_versions(stubs):
    answer = await stubs.server.GetServerInfo(server_pb2.GetServerInfoRequest())
    assert answer.ollama_version == REST_VERSION
    assert answer.version != ""


async def test_the_load_of_a_server_without_work(stubs):
    watching = stubs.server.WatchLoad(server_pb2.WatchLoadRequest())
    first = await watching.read()
    assert (list(first.models), first.pending_requests) == ([], 0)
    assert first.time.seconds > 0
    watching.cancel()
