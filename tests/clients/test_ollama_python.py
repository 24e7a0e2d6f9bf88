"""The reference's own Python client, unmodified."""

import ollama
import pytest


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
