"""The front and a backend that uses it."""

import pytest
from tests.plugins.openai.front import KEY, serving

from puna.backend import ChatInput, ChatMessage, ModelSpec, SequenceRequest
from puna_openai import OpenAIBackend


@pytest.fixture
async def front():
    """A misbehaving upstream."""
    async with serving() as front:
        yield front


@pytest.fixture
async def backend():
    """The backend, closed at the end."""
    backend = OpenAIBackend()
    yield backend
    await backend.aclose()


@pytest.fixture
def load(front, backend):
    """Loads a model of the front, with more fields of its configuration."""

    async def load(model, **fields):
        upstream = {"base_url": front.url, "api_key": KEY, "retries": 0} | fields
        spec = ModelSpec(path="", upstream=f"front/{model}", backend_options={"upstreams": {"front": upstream}})
        return await backend.load(spec, lambda fraction: None)

    return load


@pytest.fixture
def ask():
    """Makes a request of one user message, with more fields of the request or of its conversation."""

    def ask(content="hi", **fields):
        chat = {name: fields.pop(name) for name in ("tools", "tool_choice", "thinking", "messages") if name in fields}
        messages = chat.pop("messages", (ChatMessage(role="user", content=content),))
        return SequenceRequest(prompt="", chat=ChatInput(messages=messages, **chat), **fields)

    return ask


@pytest.fixture
def run():
    """Collects the events of a sequence."""

    async def run(model, request):
        return [event async for event in model.generate(request)]

    return run


@pytest.fixture
def sent_body(load, run, ask, front):
    """Makes a request and returns the body that reached the upstream."""

    async def sent_body(*, upstream=None, model="hello", **fields):
        await run(await load(model, **(upstream or {})), ask(**fields))
        return front.bodies[-1]

    return sent_body
