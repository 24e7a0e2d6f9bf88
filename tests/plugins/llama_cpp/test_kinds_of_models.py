"""Models with adapters, decoders that embed, and models that rank."""

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
    scores = await model.rerank("why is the sky blue?", documents)
    alone = [(await model.rerank("why is the sky blue?", [document]))[0] for document in documents]
    assert scores == pytest.approx(alone, abs=1e-5)
    assert len(set(scores)) == 3
    assert model.facts.embedding_length == 0
    with pytest.raises(UnsupportedError):
        await model.embed(["text"])
