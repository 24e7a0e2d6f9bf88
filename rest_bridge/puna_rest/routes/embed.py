"""/api/embed and /api/embeddings."""

import time

import grpc.aio
from aiohttp import web

from puna.offload import offload_if_heavy, weight_of_message
from puna_client.v1 import models_pb2
from puna_rest import answers, request_bodies
from puna_rest.bodies import native
from puna_rest.core import CORE, Core, metadata
from puna_rest.errors import RestError, failure
from puna_rest.translate import cloud
from puna_rest.translate import embed as embed_json

_OF_THE_INPUT = frozenset({"INPUT_TOO_LONG", "EMBEDDINGS_UNSUPPORTED", "BACKEND_FAILED"})


async def embed(request: web.Request) -> web.StreamResponse:
    """POST /api/embed."""
    start = time.time_ns()
    document, body = await request_bodies.native(request, native.EMBED)
    try:
        message = await offload_if_heavy(document.weight, embed_json.request, document, body, start)
    except RestError:
        await refuse_name(request.app[CORE], body["model"])
        raise
    response = await request.app[CORE].embed.Embed(message, metadata=metadata())
    return answers.text(
        request, await offload_if_heavy(weight_of_message(response), embed_json.answer, body["model"], response)
    )


async def refuse_name(core: Core, model: str) -> None:
    """Raise RestError if the name is not valid. Of two faults in a request, Ollama reports this one."""
    try:
        await core.models.GetModel(models_pb2.GetModelRequest(name=model), metadata=metadata())
    except grpc.aio.AioRpcError as error:
        failed = failure(error)
    else:
        return
    if failed.reason == "MODEL_REQUIRED":
        raise RestError(404, f"model '{model}' not found")
    if failed.reason == "CLOUD_DISABLED":
        raise RestError(failed.status, cloud.REFUSED)
    if failed.reason != "MODEL_NOT_FOUND":
        raise RestError(failed.status, failed.text, reason=failed.reason)


async def embeddings(request: web.Request) -> web.StreamResponse:
    """POST /api/embeddings, the older route. Every error of the model is a 500 here."""
    start = time.time_ns()
    document, body = await request_bodies.native(request, native.EMBEDDINGS)
    if not body["model"].strip():
        raise RestError(400, "model is required")
    message = await offload_if_heavy(document.weight, embed_json.legacy_request, document, body, start)
    try:
        response = await request.app[CORE].embed.Embed(message, metadata=metadata())
    except grpc.aio.AioRpcError as error:
        failed = failure(error)
        if failed.reason in _OF_THE_INPUT:
            return answers.json(request, {"error": failed.text}, status=500)
        raise
    return answers.text(request, embed_json.legacy_answer(response))
