import asyncio

import grpc
import pytest

from puna_client.v1 import chat_pb2, message_pb2, options_pb2, usage_pb2

WEATHER = message_pb2.Tool(type="function", name="get_weather", parameters_json='{"type":"object"}')
CALL = ("Look: ", "<tool_call>", '{"name": "get_weather", "arguments": {"city": "Rome"}}')


def request(model="talker", *texts, **fields):
    messages = [message_pb2.Message(role="user", content=text) for text in texts or ("a",)]
    return chat_pb2.ChatRequest(model=model, messages=messages, **fields)


async def test_unary_and_streaming_say_the_same(stubs, backend):
    for _ in range(2):
        backend.play("<think>", "hm", "</think>", *CALL)
    asked = request("both", tools=[WEATHER], options=options_pb2.RequestOptions(logprobs=True))
    answer = await stubs.chat.Chat(asked)
    deltas, done = [], None
    async for message in stubs.chat.StreamChat(asked):
        assert done is None
        deltas += message.deltas
        done = message.done if message.HasField("done") else None
    assert answer.message.role == "assistant"
    assert answer.message.thinking == "".join(each.thinking for each in deltas) == "hm"
    assert answer.message.content == "".join(each.content for each in deltas) == "Look: "
    (call,) = answer.message.tool_calls
    (streamed,) = [call for each in deltas for call in each.tool_calls]
    assert (call.name, call.arguments_json) == (streamed.name, streamed.arguments_json)
    assert call.arguments_json == '{"city":"Rome"}'
    assert answer.logprobs == [entry for each in deltas for entry in each.logprobs]
    assert answer.finish.usage == done.finish.usage


async def test_calls_come_in_a_delta_whenever_they_are_complete(stubs, backend):
    backend.play(*CALL, "</tool_call>")
    messages = [message async for message in stubs.chat.StreamChat(request("native", tools=[WEATHER]))]
    deltas = [each for message in messages for each in message.deltas]
    assert [each.content for each in deltas] == ["Look: ", ""]
    assert [call.name for each in deltas for call in each.tool_calls] == ["get_weather"]
    # The REST API writes the last delta into the line of the end, as Ollama does.
    assert messages[-1].done.completes_delta
    assert messages[-1].done.finish.reason == usage_pb2.FINISH_REASON_TOOL_CALLS


async def test_deltas_that_are_ready_travel_together_and_stay_apart(stubs, backend):
    backend.play(*map(str, range(300)))
    messages = [message async for message in stubs.chat.StreamChat(request())]
    deltas = [each.content for message in messages for each in message.deltas]
    assert deltas == list(map(str, range(300)))
    assert len(messages) < 300


async def test_no_model(stubs):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.chat.Chat(request(""))
    assert raised.value.details() == "model is required"


async def test_unloading(stubs):
    await stubs.chat.Chat(request())
    options = options_pb2.RequestOptions(keep_alive=options_pb2.KeepAlive(duration={}))
    answer = await stubs.chat.Chat(chat_pb2.ChatRequest(model="talker", options=options))
    assert answer.finish.reason == usage_pb2.FINISH_REASON_UNLOADED


async def test_hanging_up_frees_the_place(stubs, backend):
    backend.play("a", 60)
    call = stubs.chat.StreamChat(request())
    await call.read()
    call.cancel()
    for _ in range(1000):
        if not backend.running:
            break
        await asyncio.sleep(0.002)
    assert backend.running == 0
