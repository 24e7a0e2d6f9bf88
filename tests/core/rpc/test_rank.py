from dataclasses import replace

import grpc
import pytest

from puna.limits import Limits
from puna_client.v1 import rank_pb2


async def test_ranking(stubs, backend):
    backend.ranks = True
    answer = await stubs.rank.Rerank(rank_pb2.RerankRequest(model="plain", query="b", documents=["a", "b"]))
    assert [(each.index, each.score) for each in answer.results] == [(1, 1.0), (0, 0.0)]


async def test_scores(stubs):
    request = rank_pb2.ScoreRequest(model="plain", text="x", options={"logprobs": True, "top_logprobs": 1})
    request.continuations.add(text="ab")
    request.continuations.add(token_ids={"ids": [105]})
    answer = await stubs.rank.Score(request)
    shown = [(each.logprob, each.token_count, each.is_greedy, len(each.tokens)) for each in answer.results]
    assert shown == [(-1.0, 2, True, 2), (-5.0, 1, False, 1)]
    (token,) = answer.results[1].tokens
    assert (token.text, token.token_id, token.logprob, token.top[0].text) == ("f", 105, -5.0, "!")
    assert answer.usage.prompt_tokens == 4
    assert answer.timings.total.ToNanoseconds() > 0


async def test_a_context_of_token_ids(stubs, backend):
    request = rank_pb2.ScoreRequest(model="plain", token_ids={"ids": [100, 101]})
    request.continuations.add(token_ids={"ids": [102]})
    assert (await stubs.rank.Score(request)).results[0].logprob == -2.0
    assert backend.requests[0].prompt == (100, 101, 102)


async def test_too_many_continuations(stubs, serving):
    serving.settings = replace(serving.settings, limits=Limits(max_inputs=2))
    request = rank_pb2.ScoreRequest(model="plain", continuations=[{"text": "a"}] * 3)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.rank.Score(request)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "continuations: 3 texts are more than the limit of 2"


async def test_a_model_that_cannot_rank_is_refused(stubs):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.rank.Rerank(rank_pb2.RerankRequest(model="plain", query="b", documents=["a"]))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
