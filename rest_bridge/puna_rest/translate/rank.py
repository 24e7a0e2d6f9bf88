"""/v1/rerank, in the form that Jina and Cohere have in common."""

from typing import Any

from puna.limits import clamp_int32
from puna_client.v1 import options_pb2, rank_pb2
from puna_rest.errors import RestError
from puna_rest.translate.options import Body, moment


def request(body: Body, start: int) -> rank_pb2.RerankRequest:
    """Return the RerankRequest of a body. `start`: arrival in nanoseconds since 1970. Raises RestError."""
    for name in ("model", "query", "documents"):
        if not body[name]:
            raise RestError(400, f"{name} is required")
    most = body["top_n"]
    if most is not None and most < 1:
        raise RestError(400, "top_n must be at least 1")
    return rank_pb2.RerankRequest(
        model=body["model"],
        query=body["query"],
        documents=body["documents"],
        top_n=clamp_int32(most or 0),
        truncate=True,
        options=options_pb2.RequestOptions(start_time=moment(start)),
    )


def answer(body: Body, response: rank_pb2.RerankResponse) -> dict[str, Any]:
    """Return the answer."""
    tokens = response.usage.prompt_tokens
    return {
        "object": "list",
        "model": body["model"],
        "results": [_result(body, each) for each in response.results],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _result(body: Body, result: rank_pb2.RerankResponse.Result) -> dict[str, Any]:
    out: dict[str, Any] = {"index": result.index, "relevance_score": result.score}
    if body["return_documents"]:
        out["document"] = {"text": body["documents"][result.index]}
    return out
