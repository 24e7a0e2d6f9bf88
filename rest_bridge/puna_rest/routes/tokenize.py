"""/api/tokenize and /api/detokenize, which Ollama does not have."""

import time

from aiohttp import web

from puna.offload import offload_if_heavy, weight_of_message
from puna_rest import answers, request_bodies
from puna_rest.bodies import native
from puna_rest.core import CORE, metadata
from puna_rest.translate import tokenize as tokenize_json


async def tokenize(request: web.Request) -> web.StreamResponse:
    """POST /api/tokenize."""
    start = time.time_ns()
    document, body = await request_bodies.native(request, native.TOKENIZE)
    service = request.app[CORE].tokenize
    if body["messages"] is not None:
        counting = await offload_if_heavy(document.weight, tokenize_json.count_request, document, body, start)
        counted = await service.CountTokens(counting, metadata=metadata())
        written = await offload_if_heavy(
            weight_of_message(counted), tokenize_json.counted, body["model"], counted, start
        )
        return answers.text(request, written)
    message = await offload_if_heavy(document.weight, tokenize_json.request, document, body, start)
    response = await service.Tokenize(message, metadata=metadata())
    written = await offload_if_heavy(weight_of_message(response), tokenize_json.tokens, body["model"], response, start)
    return answers.text(request, written)


async def detokenize(request: web.Request) -> web.StreamResponse:
    """POST /api/detokenize."""
    start = time.time_ns()
    document, body = await request_bodies.native(request, native.DETOKENIZE)
    message = await offload_if_heavy(document.weight, tokenize_json.detokenize_request, document, body, start)
    response = await request.app[CORE].tokenize.Detokenize(message, metadata=metadata())
    return answers.text(request, tokenize_json.text(body["model"], response, start))
