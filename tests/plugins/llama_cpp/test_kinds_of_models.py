"""Models with adapters, decoders that embed, models that rank, and a recurrent one."""

import asyncio
from pathlib import Path

import pytest

from puna.backend import InvalidRequestError, UnsupportedError

MODELS = Path(__file__).parents[2] / "models"


async def test_an_adapter_changes_what_is_written(load, write):
    plain = await write(await load("chatter"), "hello")
    adapted = await write(await load("chatter", adapter_paths=(str(MODELS / "chatter-lora.gguf"),)), "hello")
    assert adapted[0]
    assert adapted[0] != plain[0]


async def test_an_adapter_of_another_architecture_is_refused(load):
    with pytest.raises(InvalidRequestError, match="mismatch"):
        await load("embedder", adapter_paths=(str(MODELS / "chatter-lora.gguf"),))


async def test_a_decoder_embeds_texts_together_as_alone(load):
    model = await load("reader")
    assert (model.facts.generates, model.facts.embedding_length) == (False, 32)
    texts = ["hello", "the wind", "hello there", "x" * 200]
    alone = [(await model.embed([text]))[0].values for text in texts]
    for embedding, values in zip(await model.embed(texts), alone, strict=True):
        assert list(embedding.values) == pytest.approx(values, abs=1e-6)
    assert alone[0] != alone[2]


async def test_documents_are_ranked(load):
    model = await load("ranker")
    documents = ["the sky is blue", "dog run", "grass"]
    found = await model.rerank("why is the sky blue?", documents)
    alone = [await model.rerank("why is the sky blue?", [document]) for document in documents]
    assert found.scores == pytest.approx([each.scores[0] for each in alone], abs=1e-5)
    assert found.token_count == sum(each.token_count for each in alone) > 3 * len(["why", "is", "the", "sky", "blue?"])
    assert len(set(found.scores)) == 3
    assert model.facts.embedding_length == 0
    with pytest.raises(UnsupportedError):
        await model.embed(["text"])


async def test_a_memory_that_cannot_be_taken_back_holds_what_it_should(load, write):
    """A recurrent model: beginnings are shared only where a chat goes on; nothing is drafted, padded or moved."""
    model, alone = await load("wanderer", parallel=4), await load("wanderer", parallel=1)
    shared = "the wind and the river and the stone " * 6
    prompts = [shared + word for word in ("sun", "moon", "sun", "star", "night", "lake", "a", "b")]
    expected = [(await write(alone, prompt, max_tokens=30))[0] for prompt in prompts]
    together = await asyncio.gather(*(write(model, prompt, max_tokens=30) for prompt in prompts))
    assert [texts for texts, _ in together] == expected
    assert len({"".join(texts) for texts in expected}) > 3
    first = "".join(expected[0])
    texts, end = await write(model, prompts[0] + first + " and", max_tokens=10)
    assert texts == (await write(await load("wanderer", parallel=1), prompts[0] + first + " and", max_tokens=10))[0]
    assert end.prompt_tokens > len(first) / 8
