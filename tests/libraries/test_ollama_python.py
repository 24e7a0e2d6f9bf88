"""Ollama's own Python client, unmodified."""

import json

import ollama
import pytest
from tests.e2e.server import MODELS

ANNA = [{"role": "user", "content": "Anna is 31 years old. Write JSON with name and age."}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def get_weather(city: str) -> str:
    """Get the weather in a city.

    Args:
        city: The name of the city
    """
    return f"18 degrees and cloudy in {city}"


@pytest.fixture
def client(server):
    with ollama.Client(host=server.url) as client:
        yield client


def test_generate(client):
    answer = client.generate(model="llamita", prompt="Why is the sky blue?", options={"temperature": 0})
    assert "blue" in answer.response
    assert answer.done
    assert answer.eval_count > 10


def test_chat_remembers_over_turns_and_streams(client):
    messages = [{"role": "user", "content": "Hi! My name is Clara."}]
    first = client.chat(model="llamita", messages=messages, options={"temperature": 0}, think=False)
    messages += [first.message, {"role": "user", "content": "What is my name?"}]
    pieces = [
        each.message.content
        for each in client.chat(
            model="llamita", messages=messages, stream=True, options={"temperature": 0}, think=False
        )
    ]
    assert len(pieces) > 2
    assert "Clara" in "".join(pieces)


def test_embed(client):
    answer = client.embed(model="embedder", input=["one", "two", "one"])
    first, second, third = answer.embeddings
    assert first == pytest.approx(third, abs=1e-5)
    assert first != pytest.approx(second, abs=1e-2)
    assert abs(sum(x * x for x in first) - 1) < 1e-4


def test_a_python_function_is_a_tool(client):
    def ask():
        return client.chat("llamita", messages, tools=[get_weather], options={"temperature": 0}, think=False).message

    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    called = ask()
    (call,) = called.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    messages += [called, {"role": "tool", "tool_name": "get_weather", "content": get_weather("Paris")}]
    assert "18 degrees" in ask().content


def test_format(client):
    answer = client.chat("llamita", ANNA, format=PERSON, options={"temperature": 0}, think=False)
    assert json.loads(answer.message.content) == {"name": "Anna", "age": 31}
    assert isinstance(json.loads(client.chat("llamita", ANNA, format="json", think=False).message.content), dict)


def test_thinking(client):
    question = [{"role": "user", "content": "What is 3 + 4?"}]
    answer = client.chat("llamita", question, think=True, options={"temperature": 0})
    assert "7" in answer.message.thinking
    assert answer.message.content == "3 + 4 = 7."


def test_logprobs(client):
    answer = client.generate("scripted", "a", logprobs=True, top_logprobs=2)
    assert [each.token for each in answer.logprobs] == ["Hello", ",", " world", "!"]
    assert [len(each.top_logprobs) for each in answer.logprobs] == [2] * 4


def test_a_model_is_made_of_a_file_copied_and_deleted(client):
    digest = client.create_blob(MODELS / "scripted.gguf")
    steps = list(
        client.create("made", files={"m.gguf": digest}, system="Be brief.", parameters={"seed": 7}, stream=True)
    )
    assert steps[-1].status == "success"
    client.copy("made", "copied")
    assert client.show("copied").parameters.split() == ["seed", "7"]
    assert [client.delete(name).status for name in ("made", "copied")] == ["success"] * 2
    assert not {"made:latest", "copied:latest"} & {model.model for model in client.list().models}


def test_list_show_ps(client):
    assert "llamita:latest" in [model.model for model in client.list().models]
    assert "completion" in client.show("llamita").capabilities
    client.generate(model="llamita", prompt="")
    assert "llamita:latest" in [model.model for model in client.ps().models]


def test_an_unknown_model_is_a_404(client):
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate(model="nowhere", prompt="Hi")
    assert caught.value.status_code == 404
    assert caught.value.error == "model 'nowhere' not found"


async def test_the_async_client_streams(server):
    async with ollama.AsyncClient(host=server.url) as client:
        stream = await client.chat(model="llamita", messages=[{"role": "user", "content": "Hello!"}], stream=True)
        assert len([part async for part in stream]) > 2
