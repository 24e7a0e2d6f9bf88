"""Models whose backends have no tokenizer, or do not know the length of their context."""

import pytest
from tests.core.serving.asking import answered, prompted, said

from puna.errors import UnsupportedOperationError
from puna.limits import LARGEST_INT32
from puna.serving.requests import EmbedRequest, RequestOptions, RerankRequest


@pytest.fixture(params=[0, 64], ids=["unknown context", "known context"])
def without_tokenizer(backend, request):
    backend.facts = {"tokenizer": False, "context_length": request.param}
    yield
    assert backend.tokenized == []


LONG = "word " * 200


async def test_generate_ends_properly_and_without_a_context(serving, backend, without_tokenizer):
    backend.facts["context_length"] = 0
    backend.parts.append(["Hi", "!"])
    deltas, done = await answered(serving.generate(prompted("plain", LONG)))
    assert "".join(each.text for each in deltas) == "Hi!"
    assert done.reason == "stop"
    assert done.context is None
    # Nothing was cut off.
    assert backend.requests[0].prompt == LONG


async def test_a_context_is_refused_in_words(serving, without_tokenizer):
    with pytest.raises(UnsupportedOperationError, match="has no tokenizer"):
        await answered(serving.generate(prompted("plain", "x", context=(5, 6))))


async def test_an_empty_context_is_none(serving, backend, without_tokenizer):
    backend.parts.append(["Hi"])
    assert (await answered(serving.generate(prompted("plain", "x", context=()))))[1].reason == "stop"


async def test_a_chat_keeps_all_its_messages(serving, backend, without_tokenizer):
    backend.facts["context_length"] = 0
    backend.parts.append(["Hi"])
    await answered(serving.chat(said("talker", LONG, LONG, "bye")))
    assert backend.requests[0].prompt.count("word") == 400


async def test_a_stuck_model_is_stopped_without_counting(serving, backend, without_tokenizer):
    backend.parts.append(["la"] * 100)
    _, done = await answered(serving.generate(prompted("plain", "x")))
    assert (done.reason, done.usage.prompt_tokens) == ("stop", 0)


async def test_without_a_known_context_the_answer_has_no_bound(serving, backend):
    backend.facts = {"tokenizer": False, "context_length": 0}
    backend.parts += [["Hi"], ["Hi"]]
    await answered(serving.generate(prompted("plain", "x")))
    await answered(serving.generate(prompted("plain", "x", values={"num_predict": 5})))
    assert [each.max_tokens for each in backend.requests] == [LARGEST_INT32, 5]


async def test_tokenize_and_detokenize_are_refused_in_words(serving, without_tokenizer):
    with pytest.raises(UnsupportedOperationError):
        await serving.tokenize("plain", "x")
    with pytest.raises(UnsupportedOperationError):
        await serving.detokenize("plain", [5])


async def test_embed_leaves_texts_alone(serving, backend, without_tokenizer):
    backend.facts |= {"embedding_length": -1, "context_length": 8192}
    made = await serving.embed(EmbedRequest(model="plain", inputs=(LONG,), truncate=True))
    assert backend.embedded == [LONG]
    assert len(made.vectors) == 1


async def test_an_unknown_context_bounds_no_text(serving, backend):
    backend.facts = {"context_length": 0, "embedding_length": 3}
    options = RequestOptions(values={"num_ctx": 5})
    # What the client asks for still holds.
    await serving.embed(EmbedRequest(model="plain", inputs=("abcdefgh",), truncate=True, options=options))
    assert backend.embedded == ["abc"]


async def test_rerank_leaves_texts_alone(serving, backend, without_tokenizer):
    backend.ranks = True
    ranking = await serving.rerank(RerankRequest(model="plain", query="word", documents=(LONG * 2000, "x")))
    assert [index for index, _ in ranking.results] == [0, 1]
