import json

import grpc
import pytest
from tests.core.serving.asking import until

from puna.runtime.launcher import NodeState, NodeStatus
from puna.settings import REST_VERSION
from puna_client.v1 import chat_pb2, generate_pb2, message_pb2, server_pb2, usage_pb2


async def test_info(stubs):
    answer = await stubs.server.GetServerInfo(server_pb2.GetServerInfoRequest())
    assert [(each.name, list(each.formats), each.error) for each in answer.backends] == [("played", ["gguf"], "")]
    (played,) = answer.backends
    assert (played.contract_version, list(played.capabilities)) == (
        1,
        ["tokenizer", "logprobs", "prompt_logprobs", "embeddings", "rerank", "vision", "thinking_budget"],
    )
    assert "lark" in played.constraints
    assert "top_k" in played.sampling
    assert played.manifest_path.endswith("/puna_played.backend.toml")
    options = json.loads(played.options_schema_json)
    assert options["properties"] == {"a": {"type": "integer", "minimum": 0, "maximum": 9, "x-scope": "request"}}
    assert options["additionalProperties"] is False


async def test_a_server_without_a_configuration_has_none_to_read(stubs):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stubs.server.ReloadConfiguration(server_pb2.ReloadConfigurationRequest())
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_nodes_are_listed_by_address(stubs, serving, monkeypatch):
    states = {
        "b:1": NodeState.DISCONNECTED,
        "a:1": NodeState.CONNECTED,
        "c:1": NodeState.CONNECTING,
    }
    nodes = [
        NodeStatus(
            address=each,
            state=state,
            hosts=2,
            free_bytes=7,
            lease_expires_ns=5 if each == "a:1" else 0,
            error="e",
            losses=3,
        )
        for each, state in states.items()
    ]
    assert not (await stubs.server.ListNodes(server_pb2.ListNodesRequest())).nodes
    monkeypatch.setattr(serving, "nodes", lambda: nodes)
    first = await stubs.server.ListNodes(server_pb2.ListNodesRequest(page_size=2))
    rest = await stubs.server.ListNodes(server_pb2.ListNodesRequest(page_token=first.next_page_token))
    found = [*first.nodes, *rest.nodes]
    assert [(each.address, each.state) for each in found] == [
        ("a:1", server_pb2.NODE_STATE_CONNECTED),
        ("b:1", server_pb2.NODE_STATE_DISCONNECTED),
        ("c:1", server_pb2.NODE_STATE_CONNECTING),
    ]
    assert (found[0].hosts, found[0].free_memory_bytes, found[0].error, found[0].lost_count) == (2, 7, "e", 3)
    assert [each.lease_expire_time.ToNanoseconds() for each in found if each.HasField("lease_expire_time")] == [5]


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
    (last,) = [message async for message in call]
    assert last.done.finish.reason == usage_pb2.FINISH_REASON_CANCELLED
    assert (last.done.finish.usage.output_tokens, last.done.finish.usage.prompt_tokens) == (1, 0)
    assert last.done.finish.timings.total.ToNanoseconds() > 0
    assert backend.running == 0
    assert list((await stubs.server.ListRequests(server_pb2.ListRequestsRequest())).requests) == []


async def cancelled(stubs, backend, call):
    """Wait until a call runs, and cancel it by its id."""
    await until(lambda: backend.running)
    (found,) = (await stubs.server.ListRequests(server_pb2.ListRequestsRequest())).requests
    await stubs.server.CancelRequests(server_pb2.CancelRequestsRequest(ids=[found.id]))
    return await call


async def test_a_cancelled_unary_call_returns_the_answer_so_far(stubs, backend):
    asked = chat_pb2.ChatRequest(model="talker", messages=[message_pb2.ChatMessage(role="user", content="a")])
    backend.play("Hel", "lo", 60)
    answer = await cancelled(stubs, backend, stubs.chat.Chat(asked))
    assert (answer.message.content, answer.finish.reason) == ("Hello", usage_pb2.FINISH_REASON_CANCELLED)
    backend.play("Hel", "lo", 60)
    text = await cancelled(
        stubs, backend, stubs.generate.Generate(generate_pb2.GenerateRequest(model="plain", text="a"))
    )
    assert (text.text, text.finish.reason) == ("Hello", usage_pb2.FINISH_REASON_CANCELLED)
    assert backend.running == 0


async def test_a_call_that_is_cancelled_before_its_first_output_has_a_status(stubs, backend):
    asked = generate_pb2.GenerateRequest(model="plain", text="a")
    backend.play(60)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await cancelled(stubs, backend, stubs.generate.Generate(asked))
    assert raised.value.code() is grpc.StatusCode.CANCELLED
    backend.play(60)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await cancelled(stubs, backend, anext(aiter(stubs.generate.StreamGenerate(asked))))
    assert raised.value.code() is grpc.StatusCode.CANCELLED


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
