"""Embedding, beside llama.cpp with the same weights."""

import json
import shutil

import llama_cpp
import numpy as np
import pytest
from tests.plugins.ctranslate2.convert_demo import ENCODER

from puna.backend import InvalidRequestError, ModelSpec, PromptTooLongError, SequenceRequest, UnsupportedError
from puna.testing import collect
from puna_ctranslate2 import CTranslate2Backend

TEXTS = ["Why is the sky blue?", "the color of the sky", "hello", "a b c d e f g h i j k l m n o p"]


async def load(folder, **values):
    spec = ModelSpec(**{"path": str(folder), "format": "ctranslate2", "context_length": 512, "threads": 1} | values)
    return await CTranslate2Backend().load(spec, lambda _: None)


@pytest.fixture
async def model(encoder):
    return await load(encoder)


@pytest.fixture(scope="module")
def llama():
    return llama_cpp.Llama(str(ENCODER), embedding=True, n_threads=1, verbose=False)


async def test_vectors_are_those_of_llama_cpp(model, llama):
    assert model.facts.embedding_length == 128
    found = await model.embed(TEXTS)
    for text, each in zip(TEXTS, found, strict=True):
        right = np.array(llama.embed(text))
        assert np.dot(each.values, right / np.linalg.norm(right)) == pytest.approx(1, abs=1e-5)
        assert np.linalg.norm(each.values) == pytest.approx(1)
        assert each.token_count == len(llama.tokenize(text.encode(), special=True))


async def test_many_texts_come_back_in_their_order(model):
    texts = [f"{'word ' * (index % 7)}{index}" for index in range(40)]
    together = await model.embed(texts)
    for index in (0, 6, 17, 39):
        (alone,) = await model.embed([texts[index]])
        assert list(together[index].values) == pytest.approx(list(alone.values), abs=1e-5)
    assert model.step() is None


async def test_tokens_do_as_well_as_text(model):
    tokens = await model.tokenize(TEXTS[0], add_special=True, parse_special=True)
    of_tokens, of_text = await model.embed([tokens, TEXTS[0]])
    assert of_tokens.values == of_text.values


async def test_raw_vectors_are_not_scaled(model):
    (unit,), (raw,) = await model.embed(["hello"]), await model.embed(["hello"], raw=True)
    length = np.linalg.norm(raw.values)
    assert length != pytest.approx(1)
    assert [value * length for value in unit.values] == pytest.approx(list(raw.values), abs=1e-5)


async def test_pooling_follows_the_option_then_the_folder(encoder, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(encoder, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))

    async def vector(folder, **options):
        model = await load(folder, backend_options=options)
        return (await model.embed(["the color of the sky"]))[0].values

    mean, cls, last = await vector(encoder), await vector(folder), await vector(folder, pooling="last")
    assert cls == await vector(encoder, pooling="cls")
    assert await vector(folder, pooling="mean") == mean
    assert len({tuple(each) for each in (mean, cls, last, await vector(encoder, pooling="max"))}) == 4


async def test_what_cannot_be_embedded_is_refused(model):
    assert model.facts.context_length == 512  # the positions that the model has learned
    with pytest.raises(PromptTooLongError) as raised:
        await model.embed(["a " * 600])
    assert raised.value.prompt_tokens == 602
    with pytest.raises(InvalidRequestError, match="nothing to embed"):
        await model.embed([()])
    with pytest.raises(InvalidRequestError, match="no token"):
        await model.embed([(10**6,)])


async def test_it_does_not_generate(model):
    assert not model.facts.generates
    with pytest.raises(UnsupportedError):
        await collect(model, SequenceRequest(prompt="a"))
