import asyncio

import grpc
import pytest

from puna_client.v1 import chat_pb2, message_pb2, options_pb2, usage_pb2

WEATHER = message_pb2.Tool(type="function", name="get_weather", parameters_json='{"type":"object"}')
CALL = ("Look: ", "<tool_call>", '{"name": "get_weather", "arguments": {"city": "Rome"}}')


def request(model="talker", *texts, **fields):
    messages = [message_pb2.ChatMessage(role="user", content=text) for text in texts or ("a",)]
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


async def streamed(stubs, asked):
    """Return the deltas of calls, the calls and the reason."""
    messages = [message async for message in stubs.chat.StreamChat(asked)]
    deltas = [each for message in messages for each in message.deltas]
    calls = [call for each in deltas for call in each.tool_calls]
    return [part for each in deltas for part in each.tool_call_deltas], calls, messages[-1].done.finish.reason


@pytest.mark.parametrize("model", ["tools", "native"])
async def test_arguments_are_streamed_if_the_client_asks_for_it(stubs, backend, model):
    answer = ("<tool_call>", '{"name": "get_weather", ', '"arguments": {"city"', ': "Ro', 'me"}}', "</tool_call>")
    for _ in range(3):
        backend.play(*answer, "<tool_call>", '{"name": "get_weather", "arguments": {}}', "</tool_call>")
    parts, calls, reason = await streamed(stubs, request(model, tools=[WEATHER], tool_call_deltas=True))
    assert [part.arguments_json for part in parts] == ['{"city"', ':"Ro', 'me"}', "{}"]
    assert [part.index for part in parts] == [call.index for call in calls for _ in range(3 - 2 * call.index)]
    first, second = calls
    assert [(part.id, part.name) for part in parts if part.id] == [(call.id, call.name) for call in (first, second)]
    assert first.arguments_json == '{"city":"Rome"}'
    assert reason == usage_pb2.FINISH_REASON_TOOL_CALLS
    parts, calls, _ = await streamed(stubs, request(model, tools=[WEATHER]))
    assert not parts
    assert [call.arguments_json for call in calls] == ['{"city":"Rome"}', "{}"]
    unary = await stubs.chat.Chat(request(model, tools=[WEATHER], tool_call_deltas=True))
    assert [call.arguments_json for call in unary.message.tool_calls] == ['{"city":"Rome"}', "{}"]


async def test_a_call_that_the_limit_cuts_has_deltas_and_is_no_call(stubs, backend):
    backend.play("<tool_call>", '{"name": "get_weather", "arguments": {"city": "R', 'ome"}}')
    options = options_pb2.RequestOptions(sampling=options_pb2.SamplingOptions(max_output_tokens=2))
    asked = request("tools", tools=[WEATHER], tool_call_deltas=True, options=options)
    parts, calls, reason = await streamed(stubs, asked)
    assert "".join(part.arguments_json for part in parts) == '{"city":"R'
    assert not calls
    assert reason == usage_pb2.FINISH_REASON_LENGTH


async def test_a_demanded_call_is_streamed_behind_thinking(stubs, backend):
    backend.play("<think>", "hm", "</think>", "<tool_call>", "{")
    backend.play("<tool_call>", '{"name": "get_weather", "arguments": {"city"', ': "Rome"}}', "</tool_call>")
    choice = message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_REQUIRED)
    options = options_pb2.RequestOptions(thinking=options_pb2.THINKING_LEVEL_ON)
    asked = request("both", tools=[WEATHER], tool_choice=choice, options=options, tool_call_deltas=True)
    parts, calls, _ = await streamed(stubs, asked)
    assert [part.arguments_json for part in parts] == ['{"city"', ':"Rome"}']
    assert [call.arguments_json for call in calls] == ['{"city":"Rome"}']


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
