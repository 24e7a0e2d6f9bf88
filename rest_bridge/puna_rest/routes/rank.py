"""/v1/rerank, which Ollama does not have."""

import time

from aiohttp import web

from puna.go import json as gojson
from puna.offload import offload_if_heavy, weight_of_message
from puna_client.v1 import rank_pb2
from puna_rest import answers, request_bodies
from puna_rest.bodies.rank import RERANK
from puna_rest.core import CORE, metadata
from puna_rest.translate import rank as rank_json
from puna_rest.translate.options import Body


async def rerank(request: web.Request) -> web.StreamResponse:
    """POST /v1/rerank."""
    start = time.time_ns()
    document, body = await request_bodies.compatible(request, RERANK)
    message = await offload_if_heavy(document.weight, rank_json.request, body, start)
    response = await request.app[CORE].rank.Rerank(message, metadata=metadata())
    return answers.line(request, await offload_if_heavy(weight_of_message(response), _written, body, response))


def _written(body: Body, response: rank_pb2.RerankResponse) -> str:
    return gojson.dumps(rank_json.answer(body, response))
