"""Whatever holds memory of llama.cpp frees it once, however often it is closed. A second time would end the process."""

import asyncio
from pathlib import Path

import pytest

from puna.backend import ModelSpec, Sampling
from puna_llama_cpp import LlamaCppBackend
from puna_llama_cpp.sampling.chain import SamplerChain

MODELS = Path(__file__).parents[2] / "models"
LORA = str(MODELS / "chatter-lora.gguf")
EYE = str(MODELS / "chatter-eye.gguf")
PROMPT = "hello " * 100


async def open_model(name, **spec):
    path = str(MODELS / f"{name}.gguf")
    return await LlamaCppBackend().load(ModelSpec(path=path, threads=1, parallel=2, **spec), lambda done: None)


@pytest.fixture
def draft():
    return {"draft_path": str(MODELS / "chatter.gguf"), "draft_tokens": 4}


async def test_a_model_may_be_closed_again_and_by_two_at_once(write, draft, tmp_path):
    options = {"kv_cache_folder": str(tmp_path / "cache")}
    model = await open_model("chatter", adapter_paths=(LORA,), projector_paths=(EYE,), backend_options=options, **draft)
    await write(model, PROMPT)
    await asyncio.gather(model.aclose(), model.aclose())
    await model.aclose()
    assert len(list((tmp_path / "cache").rglob("*.kv"))) == 1


async def test_an_embedding_model_may_be_closed_again():
    model = await open_model("embedder")
    await model.embed(["hello"])
    await model.aclose()
    await model.aclose()


async def test_closing_again_leaves_the_weights_to_those_that_share_them(load, write):
    alone = await open_model("scripted")
    expected = await write(alone, "b")
    await alone.aclose()
    first, second = await open_model("scripted"), await load("scripted", parallel=2)
    assert second.facts.shared_bytes
    for _ in range(3):
        await first.aclose()
    assert (await write(second, "b"))[0] == expected[0]
    assert (await load("scripted")).facts.shared_bytes


def test_parts_that_were_not_started_may_be_closed_again(parts, draft):
    opened = parts(adapter_paths=(LORA,), projector_paths=(EYE,), **draft)
    assert opened.projector
    assert opened.speculator.model
    opened.close()
    opened.close()


async def test_what_an_estimate_keeps_may_be_closed_again():
    backend = LlamaCppBackend()
    await backend.estimate_memory(ModelSpec(path=str(MODELS / "chatter.gguf"), threads=1))
    await backend.aclose()
    await backend.aclose()


def test_a_chain_of_samplers_may_be_closed_again(parts):
    chain = SamplerChain(Sampling(repeat_penalty=1.1), parts().weights.vocabulary, 2048, [1])
    chain.close()
    chain.close()
