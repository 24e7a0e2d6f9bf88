"""The end of a model, over a fake library whose samples are given."""

import asyncio
from pathlib import Path

import pytest
from tests.plugins.ctransformers.test_engine import Library

from puna.backend import BackendError, Finish, SequenceRequest
from puna_ctransformers.backend import CTransformersModel
from puna_ctransformers.header import Header

DEMO = Path(__file__).parents[3] / "core/puna/demo/llamita.gguf"
IDS = (5, 6, 7)


class ByteLibrary(Library):
    """Gives each byte a token too."""

    def tokenize(self, text):
        return list(text)

    def token_bytes(self, token):
        return bytes([token])


@pytest.fixture
def model():
    return CTransformersModel(ByteLibrary("hello"), Header(DEMO), threads=1)


async def written(model):
    return [event async for event in model.generate(SequenceRequest(prompt=IDS))]


async def test_a_freed_model_refuses_calls(model):
    await model.aclose()
    await model.aclose()
    for call in (
        written(model),
        model.tokenize("hello", add_special=True, parse_special=True),
        model.detokenize(IDS, special=True),
        model.embed(["hello"]),
        model.embed([IDS]),
    ):
        with pytest.raises(BackendError, match="the model was unloaded"):
            await call
    assert model.step() is None
    assert model.facts.generates


async def test_freeing_waits_for_the_running_call_and_refuses_those_that_wait(model):
    running = asyncio.ensure_future(written(model))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(model.aclose())
    await asyncio.sleep(0)
    waiting = [asyncio.ensure_future(each) for each in (written(model), model.embed([IDS]))]
    assert isinstance((await running)[-1], Finish)
    await closing
    for each in waiting:
        with pytest.raises(BackendError, match="the model was unloaded"):
            await each
