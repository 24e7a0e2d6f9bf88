import asyncio
from contextlib import aclosing

import pytest

from puna.backend import InvalidRequestError, ModelSpec, PromptTooLongError, SequenceRequest
from puna.errors import BackendFailedError, LoadFailedError, OutOfMemoryError
from puna.host import inprocess


@pytest.fixture
def load(registry, journal):
    async def load(**options):
        spec = ModelSpec(path="", backend_options={"journal": str(journal.path)} | options)
        return await inprocess.load(registry.get("scripted_here"), spec, lambda _: None)

    return load


async def test_a_model_answers(load):
    model = await load()
    events = [event async for event in model.generate(SequenceRequest(prompt="a b"))]
    assert [event.text for event in events[:-1]] == ["a", "b"]
    assert events[-1].output_tokens == 2
    assert await model.tokenize("a", add_special=True, parse_special=False) == [1, 97]
    assert await model.detokenize([97], special=False) == [b"a"]
    assert [each.token_count for each in await model.embed(["ab"])] == [2]
    assert model.facts.bos_text == "<s>"


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("@refuse", InvalidRequestError),
        ("@long", PromptTooLongError),
        ("@raise", BackendFailedError),
        ("@unended", BackendFailedError),
    ],
)
async def test_errors_are_the_contracts_or_the_backends(load, prompt, error):
    model = await load()
    with pytest.raises(error):
        async for _ in model.generate(SequenceRequest(prompt=prompt)):
            pass


async def test_closing_closes_the_plugins_generator(load, journal):
    model = await load()
    async with aclosing(model.generate(SequenceRequest(prompt="@endless"))) as events:
        async for _ in events:
            break
    assert journal.lines()[-2:] == ["stopped", "end"]


async def test_cancelling_reaches_the_plugin(load, journal):
    model = await load()

    async def consume():
        async with aclosing(model.generate(SequenceRequest(prompt="@wait 60"))) as events:
            async for _ in events:
                pass

    task = asyncio.ensure_future(consume())
    await journal.until("start")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal.lines()[-2:] == ["stopped", "end"]


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("memory", OutOfMemoryError, "unable to load model: no room"),
        ("refuse", LoadFailedError, "unable to load model: no model of mine"),
        ("raise", LoadFailedError, "unable to load model: No module named 'heavy'"),
    ],
)
async def test_loading_may_fail(load, how, error, text):
    with pytest.raises(error, match=text):
        await load(load=how)
