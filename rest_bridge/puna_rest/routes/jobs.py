"""/api/create, /api/pull and /api/push: jobs that report progress."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TypeVar

import grpc.aio
from aiohttp import web

from puna.offload import offload_if_heavy
from puna_client.v1 import models_pb2
from puna_rest import answers, request_bodies, streams
from puna_rest.bodies import native
from puna_rest.core import CORE, metadata
from puna_rest.errors import Failure, RestError, failure
from puna_rest.translate import create as create_json
from puna_rest.translate.create import HasProgress, JobError

Step = TypeVar("Step", bound=HasProgress)


async def create(request: web.Request) -> web.StreamResponse:
    """POST /api/create."""
    document, body = await request_bodies.native(request, native.CREATE)
    try:
        message = await offload_if_heavy(document.weight, create_json.request, document, body)
    except JobError as error:
        refused = _error(request, failure(error))
        return refused if body["stream"] is False else answers.flushed(request, refused)
    call = request.app[CORE].models.CreateModel(message, metadata=metadata())
    return await _job(request, call, stream=body["stream"] is not False)


async def pull(request: web.Request) -> web.StreamResponse:
    """POST /api/pull."""
    _, body = await request_bodies.native(request, native.PULL, small=True)
    message = models_pb2.PullModelRequest(name=body["model"] or body["name"], insecure=body["insecure"])
    call = request.app[CORE].models.PullModel(message, metadata=metadata())
    return await _job(request, call, stream=body["stream"] is not False)


async def push(request: web.Request) -> web.StreamResponse:
    """POST /api/push."""
    _, body = await request_bodies.native(request, native.PUSH, small=True)
    name = body["model"] or body["name"]
    if not name:
        raise RestError(400, "model is required")
    message = models_pb2.PushModelRequest(name=name, insecure=body["insecure"])
    call = request.app[CORE].models.PushModel(message, metadata=metadata())
    return await _job(request, call, stream=body["stream"] is not False)


async def _job(request: web.Request, call: streams.Call[Step], *, stream: bool) -> web.StreamResponse:
    try:
        if stream:
            return await streams.relay(request, call, streams.NDJSON, _line, streams.ndjson_error)
        return answers.text(request, await _last(call), answers.JSON)
    except grpc.aio.AioRpcError as error:
        failed = failure(error)
        if failed.reason == "INVALID_MODEL_NAME":  # errors before the job starts have a status of their own
            raise
        failed = replace(failed, status=_status(failed))
        refused = _error(request, failed)
        return answers.flushed(request, refused) if stream else refused


def _status(failed: Failure) -> int:
    # Ollama opens the blobs of `files` while the job runs, as a fault of the server, and checks the other ones before.
    late = failed.reason == "INVALID_DIGEST" or failed.text.startswith("open ")
    if failed.field == "files" and late:
        return 500
    return 400 if failed.reason == "BLOB_NOT_FOUND" else failed.status


async def _last(call: streams.Call[Step]) -> str:
    last = "{}"
    try:
        steps: AsyncIterator[Step] = call.__aiter__()
        async for step in steps:
            last = create_json.line(step) or last
    finally:
        call.cancel()
    return last


def _line(step: HasProgress) -> str:
    return line + "\n" if (line := create_json.line(step)) else ""


def _error(request: web.Request, failed: Failure) -> web.Response:
    return answers.json(request, {"error": failed.text}, answers.JSON, failed.status)
