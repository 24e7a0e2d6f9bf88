import asyncio
import json
import math
from pathlib import Path

import pytest

from puna.backend import InvalidRequestError, PromptTooLongError, SequenceRequest, UnsupportedError

REFERENCE = json.loads((Path(__file__).parent / "embeddings.json").read_text())
TEXTS = list(REFERENCE)


@pytest.fixture
async def embedder(load):
    return await load("embedder")


async def test_facts(embedder):
    facts = embedder.facts
    assert (facts.generates, facts.embedding_length, facts.context_length, facts.parallel) == (False, 32, 64, 1)


async def test_vectors_are_those_of_ollama(embedder, recorded_bits):
    for text, vector in REFERENCE.items():
        [embedding] = await embedder.embed([text])
        assert list(embedding.values) == pytest.approx(vector, abs=1e-6 if recorded_bits else 1e-4)


async def test_company_changes_nothing(embedder):
    alone = [(await embedder.embed([text]))[0].values for text in TEXTS]
    assert [each.values for each in await embedder.embed(TEXTS)] == [
        pytest.approx(values, abs=1e-6) for values in alone
    ]
    together = await asyncio.gather(*(embedder.embed([text]) for text in TEXTS * 4))
    for [embedding], values in zip(together, alone * 4, strict=True):
        assert list(embedding.values) == pytest.approx(values, abs=1e-6)


async def test_raw_vectors_are_not_normalized(embedder):
    [raw] = await embedder.embed(["the llama"], raw=True)
    [unit] = await embedder.embed(["the llama"])
    length = math.hypot(*raw.values)
    assert length > 2
    assert list(unit.values) == pytest.approx([value / length for value in raw.values], abs=1e-6)
    assert math.hypot(*unit.values) == pytest.approx(1, abs=1e-6)


async def test_tokens_do_as_well_as_text(embedder):
    tokens = await embedder.tokenize("the llama", add_special=True, parse_special=True)
    [of_tokens], [of_text] = await embedder.embed([tokens]), await embedder.embed(["the llama"])
    assert list(of_tokens.values) == list(of_text.values)
    assert of_tokens.token_count == of_text.token_count == 4


async def test_an_empty_text_still_has_its_special_tokens(embedder):
    [embedding] = await embedder.embed([""])
    assert embedding.token_count == 2
    assert await embedder.embed([]) == []
    with pytest.raises(InvalidRequestError):
        await embedder.embed([[]])


async def test_the_longest_text_and_one_more(embedder):
    assert (await embedder.embed(["a " * 62]))[0].token_count == 64
    with pytest.raises(PromptTooLongError) as caught:
        await embedder.embed(["fine", "a " * 63])
    assert (caught.value.prompt_tokens, caught.value.context_length) == (65, 64)


async def test_cancelling_leaves_the_others_alone(embedder):
    tasks = [asyncio.create_task(embedder.embed(["sky blue " * 20] * 5)) for _ in range(6)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in done] == [True, False] * 3
    assert all(len(vectors) == 5 for vectors in done[1::2])


async def test_it_neither_writes_nor_ranks(embedder):
    with pytest.raises(UnsupportedError):
        await anext(embedder.generate(SequenceRequest(prompt="hello")))
    with pytest.raises(UnsupportedError):
        await embedder.rerank("a", ["b"])
