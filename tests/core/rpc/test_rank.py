import grpc
import pytest

from puna_client.v1 import rank_pb2


async def test_ranking(stubs, backend):
    backend.ranks = True
    answer = await stubs.rank.Rerank(rank_pb2.RerankRequest(model="plain", query="b", documents=["a", "b"]))
    assert [(each.index, each.score) for each in answer.results] == [(1, 1.0), (0, 0.0)]


async def test_scoring_is_not_there_yet(stubs):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.rank.Score(rank_pb2.ScoreRequest(model="plain", prompt="a", candidates=["b"]))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert raised.value.details() == "no backend can score given texts yet"


async def test_a_model_that_cannot_rank_is_refused(stubs):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.rank.Rerank(rank_pb2.RerankRequest(model="plain", query="b", documents=["a"]))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
