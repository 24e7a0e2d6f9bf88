"""RankService."""

from puna.offload import offload_if_heavy, weight_of_message
from puna.rpc import answers, bounds, convert
from puna.rpc.error_boundary import Context, unary
from puna.rpc.observe import observed
from puna.serving.answers import Scores
from puna.serving.core import Serving
from puna_client.v1 import rank_pb2, rank_pb2_grpc


class RankServicer(rank_pb2_grpc.RankServiceServicer):
    """Serves RankService."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @unary
    async def Rerank(self, request: rank_pb2.RerankRequest, context: Context) -> rank_pb2.RerankResponse:
        """Order documents by relevance."""
        with observed(self._serving.activity, request.model, "Rerank") as entry:
            bounds.check_rerank(request, self._serving.settings.limits)
            asked = await offload_if_heavy(weight_of_message(request), convert.rerank_request, request)
            ranking = await self._serving.rerank(asked, entry.on_progress)
            entry.usage = ranking.usage
        return rank_pb2.RerankResponse(
            results=[rank_pb2.RerankResponse.Result(index=index, score=score) for index, score in ranking.results],
            usage=answers.usage(ranking.usage),
            timings=answers.timings(ranking.timings),
        )

    @unary
    async def Score(self, request: rank_pb2.ScoreRequest, context: Context) -> rank_pb2.ScoreResponse:
        """Score the continuations of a context."""
        with observed(self._serving.activity, request.model, "Score") as entry:
            bounds.check_score(request, self._serving.settings.limits)
            asked = await offload_if_heavy(weight_of_message(request), convert.score_request, request)
            scores = await self._serving.score(asked, entry.on_progress)
            entry.usage = scores.usage
        weight = len(scores.results) + sum(2 + len(token.top) for each in scores.results for token in each.tokens)
        return await offload_if_heavy(weight, _scores, scores)


def _scores(scores: Scores) -> rank_pb2.ScoreResponse:
    return rank_pb2.ScoreResponse(
        results=[
            rank_pb2.ScoreResponse.Result(
                logprob=each.logprob,
                token_count=each.token_count,
                is_greedy=each.is_greedy,
                tokens=map(answers.logprob, each.tokens),
            )
            for each in scores.results
        ],
        usage=answers.usage(scores.usage),
        timings=answers.timings(scores.timings),
    )
