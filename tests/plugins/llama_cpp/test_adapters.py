"""Models of one base with adapters of their own: they share the weights, and nothing of what they write."""

import asyncio
import itertools
import shutil
import struct
from contextlib import aclosing
from pathlib import Path

import pytest

from puna.backend import InvalidRequestError, ModelSpec, Prefill, Sampling, SequenceRequest
from puna_llama_cpp import LlamaCppBackend

MODELS = Path(__file__).parents[2] / "models"
LORA = MODELS / "chatter-lora.gguf"
PROMPTS = ["hello", "the wind and the river", "stone " * 120 + "moon", "a" * 40]
SALTS = itertools.count()
ALPHA = b"adapter.lora.alpha" + struct.pack("<I", 6)
"""The name and the type of the number by which an adapter is scaled, as they stand in front of it."""


@pytest.fixture
def adapters(tmp_path):
    """Sets of adapters for chatter: none, the one of tests/models, another one, and both."""
    other, data = tmp_path / "other.gguf", LORA.read_bytes()
    assert data.count(ALPHA + struct.pack("<f", 8.0)) == 1
    other.write_bytes(data.replace(ALPHA + struct.pack("<f", 8.0), ALPHA + struct.pack("<f", -6.0)))
    return (), (str(LORA),), (str(other),), (str(LORA), str(other))


@pytest.fixture
def base(tmp_path):
    """A file that nothing else in this process has loaded."""
    return str(shutil.copy(MODELS / "chatter.gguf", tmp_path / "base.gguf"))


async def texts(model, write, **request):
    # A salt for each prompt, since what the cache holds of one decides where its evaluation begins.
    salted = [(prompt, str(next(SALTS))) for prompt in PROMPTS]
    # One after the other, since prompts of one model that share a step may have other bits than alone.
    answers = [await write(model, prompt, cache_salt=salt, **request) for prompt, salt in salted]
    return ["".join(parts) for parts, _ in answers]


async def test_each_writes_beside_the_others_what_it_writes_alone(load, write, adapters):
    asked = [
        {},
        {"sampling": Sampling(temperature=0.9, seed=5)},
        {"max_tokens": 120},
    ]
    alone = {}
    for paths in adapters:
        backend = LlamaCppBackend()
        spec = ModelSpec(path=str(MODELS / "chatter.gguf"), adapter_paths=paths, threads=1, parallel=4)
        model = await backend.load(spec, lambda done: None)
        alone[paths] = [await texts(model, write, **each) for each in asked]
        await model.aclose()
    assert len({str(each) for each in alone.values()}) == len(adapters)
    models = {paths: await load(adapter_paths=paths, parallel=4) for paths in adapters}
    for index, each in enumerate(asked):
        together = await asyncio.gather(*(texts(model, write, **each) for model in models.values()))
        assert together == [alone[paths][index] for paths in models]


async def test_a_further_model_counts_its_adapters_and_caches_alone(load, adapters, base):
    first, second = [await load(path=base, adapter_paths=each) for each in adapters[1:3]]
    weights = (MODELS / "chatter.gguf").stat().st_size
    assert (first.facts.shared_bytes, first.facts.shared_vram_bytes) == (0, 0)
    assert second.facts.shared_bytes == pytest.approx(weights, rel=0.2)
    assert second.facts.size_bytes + second.facts.shared_bytes == pytest.approx(first.facts.size_bytes, rel=0.01)


async def test_other_ways_to_load_the_file_share_nothing(load, base):
    await load(path=base)
    assert not (await load(path=base, use_mmap=True)).facts.shared_bytes


async def test_the_weights_stay_until_their_last_model_is_freed(load, write, adapters):
    backend = LlamaCppBackend()
    spec = ModelSpec(path=str(MODELS / "chatter.gguf"), adapter_paths=adapters[1], threads=1)
    first = await backend.load(spec, lambda done: None)
    second = await load(adapter_paths=adapters[2])
    before = await texts(second, write)
    await first.aclose()
    assert await texts(second, write) == before
    # The adapter that was freed can be loaded again.
    third = await load(adapter_paths=adapters[1])
    assert third.facts.shared_bytes
    assert await texts(third, write) != before


async def test_an_adapter_that_does_not_fit_leaves_the_others_alone(load, write, adapters, tmp_path):
    model = await load(adapter_paths=adapters[1])
    before = await texts(model, write)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(LORA.read_bytes()[:3000])
    reader = str(MODELS / "reader.gguf")
    for path, reason in ((str(broken), "adapter"), (reader, "adapter"), (str(tmp_path / "none.gguf"), "none.gguf")):
        with pytest.raises(InvalidRequestError, match=reason):
            await load(adapter_paths=(path,))
    assert await texts(model, write) == before
    assert (await load(adapter_paths=adapters[2])).facts.shared_bytes


async def test_a_cancelled_prefill_of_one_leaves_the_others_alone(load, write, adapters):
    first, second = [await load(adapter_paths=each, context_length=2048) for each in adapters[:2]]
    expected = await texts(second, write)

    async def begin(number):
        """Cancel a prompt behind its first part. No part of it is in a cache."""
        request = SequenceRequest(prompt=f"{number} " + "the wind " * 220, sampling=Sampling(temperature=0))
        async with aclosing(first.generate(request)) as events:
            assert isinstance(await anext(events), Prefill)

    for number in range(5):
        writing = asyncio.create_task(texts(second, write))
        await begin(number)
        assert await writing == expected
    assert await texts(first, write) == await texts(await load(), write)


async def test_models_that_embed_share_the_weights_too(load):
    first, second = await load("reader"), await load("reader")
    assert second.facts.shared_bytes
    several = await asyncio.gather(*(each.embed(["hello", "the wind"]) for each in (first, second) * 4))
    assert all(each == several[0] for each in several)
