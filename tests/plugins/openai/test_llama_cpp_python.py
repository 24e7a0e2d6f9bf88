"""The backend against the server of llama-cpp-python, with the demo models."""

import asyncio
import json
import math
import subprocess
import sys
from importlib.resources import files

import aiohttp
import pytest

from puna.backend import BackendError, Constraint, ModelSpec, Sampling

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory, unused_tcp_port_factory):
    """The address of the server."""
    demo, port = files("puna.demo"), unused_tcp_port_factory()
    models = [
        {"model": str(demo / "llamita.gguf"), "model_alias": "llamita", "n_ctx": 512, "logits_all": True},
        {"model": str(demo / "llamita-embed.gguf"), "model_alias": "llamita-embed", "embedding": True, "n_ctx": 256},
    ]
    for each in models:
        each["verbose"] = False
    config = tmp_path_factory.mktemp("server") / "config.json"
    config.write_text(json.dumps({"host": "127.0.0.1", "port": port, "models": models}))
    command = [sys.executable, "-W", "ignore", "-m", "llama_cpp.server", "--config_file", str(config)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def upstreams(server):
    """The configuration, once the server answers."""
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            try:
                async with session.get(f"{server}/models") as response:
                    assert response.status == 200
                    break
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)
    return {"upstreams": {"llama": {"base_url": server, "dialect": "llama-cpp-python", "retries": 0}}}


@pytest.fixture
def load(backend, upstreams):
    async def load(model):
        return await backend.load(
            ModelSpec(path="", upstream=f"llama/{model}", backend_options=upstreams), lambda fraction: None
        )

    return load


async def test_models_are_listed(backend, upstreams):
    found = await backend.models(upstreams)
    assert [each.name for each in found] == ["llama/llamita", "llama/llamita-embed"]


async def test_a_chat(load, run, ask):
    *deltas, finish = await run(await load("llamita"), ask("How old are you?", sampling=GREEDY, max_tokens=12))
    assert "".join(each.content for each in deltas)
    assert finish.reason in ("stop", "length")
    assert 0 < finish.output_tokens <= 12


async def test_the_limit(load, run, ask):
    *_, finish = await run(await load("llamita"), ask("Tell me about yourself.", sampling=GREEDY, max_tokens=2))
    assert finish.reason == "length"


async def test_a_schema_holds(load, run, ask):
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    request = ask("A number!", sampling=GREEDY, constraint=Constraint("json_schema", json.dumps(schema)))
    *deltas, _ = await run(await load("llamita"), request)
    assert json.loads("".join(each.content for each in deltas)) in ({"a": 1}, {"a": 2})


async def test_logprobs(load, run, ask):
    *deltas, _ = await run(await load("llamita"), ask("hello", sampling=GREEDY, max_tokens=4, top_logprobs=2))
    entries = [entry for delta in deltas for entry in delta.logprobs]
    assert entries
    for entry in entries:
        assert entry.logprob <= 0
        assert len(entry.top) == 2
        assert entry.top[0].logprob >= entry.top[1].logprob
        # Greedy decoding takes the best.
        assert math.isclose(entry.logprob, entry.top[0].logprob, abs_tol=1e-5)


async def test_a_prompt_that_is_too_long(load, run, ask):
    # The server begins a stream and then breaks it without a reason.
    with pytest.raises(BackendError, match="ended its answer too early"):
        await run(await load("llamita"), ask("word " * 2000))


async def test_vectors(load):
    model = await load("llamita-embed")
    first, second = await model.embed(["a cat", "a dog"])
    assert math.isclose(sum(value * value for value in first.values), 1, abs_tol=1e-5)
    assert first.values != second.values
    assert first.token_count > 0


async def test_cancelling_leaves_the_server_free(load, run, ask):
    model = await load("llamita")
    events = model.generate(ask("Tell me about yourself.", max_tokens=400))
    await anext(events)
    await events.aclose()
    *_, finish = await asyncio.wait_for(run(model, ask("hello", max_tokens=2)), 30)
    assert finish.output_tokens > 0
