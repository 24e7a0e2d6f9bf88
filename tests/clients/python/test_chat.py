"""Chats, structured output and embeddings, by the async and the sync client."""

import os
from array import array

import pytest

from conftest import EXACT
from puna_client import Client, tool, tool_result, user
from puna_client.v1.embed_pb2 import EmbedRequest
from puna_client.v1.embed_pb2_grpc import EmbedServiceStub
from puna_client.v1.usage_pb2 import FinishReason

WEATHER = tool(
    "get_weather",
    "Get the weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
TEXTS = ["Why is the sky blue?", "A herd of llamas"]


async def test_streamed_chat_with_a_tool(client):
    messages = [user("What is the weather in Oslo?")]
    stream = client.chat("llamita", messages, tools=[WEATHER], options=EXACT)
    calls = [call async for delta in stream for call in delta.tool_calls]
    answer = await stream.result()
    assert answer.finish.reason == FinishReason.FINISH_REASON_TOOL_CALLS
    assert calls == answer.tool_calls
    (call,) = calls
    assert (call.name, call.arguments) == ("get_weather", {"city": "Oslo"})
    messages += [answer.message, tool_result(call, "18 degrees and sunny")]
    stream = client.chat("llamita", messages, tools=[WEATHER], options=EXACT)
    texts = [delta.text async for delta in stream]
    answer = await stream.result()
    assert "18 degrees" in answer.text == "".join(texts)
    assert answer.finish.reason == FinishReason.FINISH_REASON_STOP
    assert answer.finish.usage.prompt_tokens
    assert answer.finish.usage.output_tokens


async def test_structured_output(client):
    stream = client.chat("llamita", "Ada is 36 years old. Answer in JSON.", schema=PERSON, options=EXACT)
    person = (await stream.result()).json()
    assert isinstance(person["name"], str)
    assert isinstance(person["age"], int)


async def test_packed_embeddings(client):
    embeddings = await client.embed("llamita-embed", TEXTS)
    listed = await EmbedServiceStub(client.channel).Embed(EmbedRequest(model="llamita-embed", inputs=TEXTS))
    assert embeddings.vectors == [array("f", vector.values) for vector in listed.vectors]
    assert [sum(value**2 for value in vector) for vector in embeddings.vectors] == pytest.approx([1, 1], rel=1e-4)
    assert embeddings.usage.prompt_tokens == listed.usage.prompt_tokens


def test_the_sync_client_does_the_same():
    with Client(os.environ["PUNA_ADDRESS"]) as client:
        messages = [user("What is the weather in Oslo?")]
        answer = client.chat("llamita", messages, tools=[WEATHER], options=EXACT).result()
        messages += [answer.message, *(tool_result(call, "18 degrees and sunny") for call in answer.tool_calls)]
        texts = [delta.text for delta in client.chat("llamita", messages, options=EXACT)]
        assert "18 degrees" in "".join(texts)
        person = client.chat("llamita", "Ada is 36 years old.", schema=PERSON, options=EXACT).result().json()
        assert isinstance(person["age"], int)
        assert [len(vector) for vector in client.embed("llamita-embed", TEXTS).vectors] == [128, 128]
