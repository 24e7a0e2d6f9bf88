"""Whatever holds memory of llama.cpp frees it once, however often it is closed, and is not used afterwards.

A second time, or a use of freed memory, would end the process.
"""

import asyncio
from pathlib import Path

import pytest
from tests.plugins.llama_cpp.sample_images import png

from puna.backend import BackendError, Constraint, KvCacheUsage, ModelSpec, Sampling, SequenceRequest
from puna.backend.thinking import ThinkingBudget, ThinkingMarkers
from puna_llama_cpp import LlamaCppBackend
from puna_llama_cpp.sampling.chain import SamplerChain

MODELS = Path(__file__).parents[2] / "models"
LORA = str(MODELS / "chatter-lora.gguf")
EYE = str(MODELS / "chatter-eye.gguf")
PROMPT = "hello " * 100
IDS = (20, 21, 22)
LONG = "hello there " * 100_000
"""A text that takes a while to tokenize, in a thread."""
MARKERS = ThinkingMarkers(starts=("<think>",), ends=("</think>",), closings=("</think>",))


async def written(model, **request):
    return [event async for event in model.generate(SequenceRequest(max_tokens=9, **request))]


def tokenized(model, text):
    return model.tokenize(text, add_special=True, parse_special=True)


GENERATIVE = {
    "a text": lambda model: written(model, prompt="hello"),
    "token ids": lambda model: written(model, prompt=IDS),
    "an image": lambda model: written(model, prompt="[img-0] hello", media=(png(1),)),
    "a constraint": lambda model: written(model, prompt=IDS, constraint=Constraint("regex", "[a-z]+")),
    "preserved tokens": lambda model: written(model, prompt=IDS, preserved_tokens=("</s>",)),
    "a budget": lambda model: written(model, prompt=IDS, thinking_budget=ThinkingBudget(max_tokens=1, markers=MARKERS)),
    "tokenize": lambda model: tokenized(model, "hello"),
    "tokenize in a thread": lambda model: tokenized(model, LONG),
    "detokenize": lambda model: model.detokenize(IDS, special=True),
    "detokenize in a thread": lambda model: model.detokenize(IDS * 5000, special=True),
}
"""Everything that a generative model can be asked, and that uses llama.cpp's memory."""
EMBEDDING = {
    "texts": lambda model: model.embed(["hello", "there"]),
    "token ids": lambda model: model.embed([IDS, IDS]),
    "tokenize": lambda model: tokenized(model, "hello"),
    "detokenize": lambda model: model.detokenize(IDS, special=True),
}


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


@pytest.mark.parametrize("call", GENERATIVE.values(), ids=GENERATIVE)
async def test_a_call_after_the_end_of_a_model_is_an_error(tmp_path, call):
    model = await open_model(
        "chatter", projector_paths=(EYE,), backend_options={"kv_cache_folder": str(tmp_path / "cache")}
    )
    assert await call(model)
    await model.aclose()
    with pytest.raises(BackendError, match="the model was unloaded"):
        await call(model)
    assert model.step() is None
    assert isinstance(model.kv_cache_usage(), KvCacheUsage)
    assert model.facts.generates


@pytest.mark.parametrize("call", EMBEDDING.values(), ids=EMBEDDING)
async def test_a_call_after_the_end_of_an_embedding_model_is_an_error(call):
    model = await open_model("embedder")
    assert await call(model)
    await model.aclose()
    with pytest.raises(BackendError, match="the model was unloaded"):
        await call(model)
    assert model.step() is None


async def test_a_call_after_the_end_of_a_ranking_model_is_an_error():
    model = await open_model("ranker")
    await model.aclose()
    with pytest.raises(BackendError, match="the model was unloaded"):
        await model.rerank("why?", ["the sky", "the sea"])


@pytest.mark.parametrize("delay", [0, 0.02])
async def test_calls_beside_the_end_of_a_model_end_too(delay):
    """Each returns what it should, or the error; none meets freed memory or is taken for cancelled."""
    model = await open_model("chatter", projector_paths=(EYE,))
    calls = [asyncio.ensure_future(call(model)) for call in GENERATIVE.values()]
    images = [GENERATIVE["an image"](model) for _ in range(12)]
    calls += map(asyncio.ensure_future, images)
    await asyncio.sleep(delay)
    await asyncio.gather(model.aclose(), model.aclose())
    async with asyncio.timeout(20):
        ended = await asyncio.gather(*calls, return_exceptions=True)
    errors = [each for each in ended if isinstance(each, BaseException)]
    assert {(type(each), str(each)) for each in errors} <= {(BackendError, "the model was unloaded")}


async def test_the_end_of_a_model_waits_for_a_text_that_is_being_tokenized():
    model = await open_model("chatter")
    expected = await tokenized(model, LONG)
    running = asyncio.ensure_future(tokenized(model, LONG))
    await asyncio.sleep(0.05)
    await model.aclose()
    (found,) = await asyncio.gather(running, return_exceptions=True)
    # An error on a busy machine, where the thread begins after the end.
    assert found == expected or str(found) == "the model was unloaded"


def test_a_context_that_was_closed_is_not_used(parts):
    opened = parts()
    context, weights = opened.context, opened.weights
    opened.close()
    for use in (
        context.clear,
        lambda: context.logits(0),
        lambda: context.truncate(0, 0),
        lambda: context.shift(0, 1, 2),
        lambda: context.copy(0, 1),
        lambda: context.state(0),
        lambda: weights.metadata("general.architecture"),
        lambda: weights.size_bytes,
    ):
        with pytest.raises(BackendError, match="the model was unloaded"):
            use()
