import pytest

from puna import errors
from puna.serving.requests import RerankRequest


async def test_rerank(serving, backend):
    backend.ranks = True
    found = await serving.rerank(RerankRequest(model="plain", query="b", documents=("a", "b", "abc"), top_n=2))
    assert found.results == ((1, 1.0), (2, 1.0))
    assert found.usage.prompt_tokens == 3 * (1 + 3) + 5


async def test_a_model_that_ranks_nothing(serving):
    for documents in (("a",), ()):
        with pytest.raises(errors.RankingUnsupportedError):
            await serving.rerank(RerankRequest(model="plain", query="b", documents=documents))


async def test_a_document_that_does_not_fit_is_refused_or_cut(serving, backend):
    backend.ranks = True
    documents = ("x" * 5000 + "b", "b" + "y" * 5000, "b" * 200, "ä" * 3000)
    with pytest.raises(errors.ContextOverflowError):
        await serving.rerank(RerankRequest(model="plain", query="b", documents=documents))
    found = await serving.rerank(RerankRequest(model="plain", query="b", documents=documents, truncate=True))
    # The end of the first document, with the query's word, is cut off.
    assert found.results == ((1, 1.0), (2, 1.0), (0, 0.0), (3, 0.0))
    assert found.usage.prompt_tokens <= 4 * 4096


async def test_a_document_as_long_as_the_room_stays_whole(serving, backend):
    backend.ranks = True
    room = 4096 - len("query") - 3 - 8
    document = "x" * (room - len("query")) + "query"
    found = await serving.rerank(RerankRequest(model="plain", query="query", documents=(document,), truncate=True))
    assert found.results == ((0, 1.0),)


async def test_a_query_is_never_cut(serving, backend):
    backend.ranks = True
    with pytest.raises(errors.ContextOverflowError):
        await serving.rerank(RerankRequest(model="plain", query="b" * 5000, documents=("b",), truncate=True))
