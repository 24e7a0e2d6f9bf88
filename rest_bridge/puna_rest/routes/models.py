"""/api/tags, ps, show, copy, delete."""

from functools import partial

from aiohttp import web

from puna.go import json as gojson
from puna.offload import offload_if_heavy, weight_of_message
from puna.paging import read_pages
from puna_client.v1 import models_pb2
from puna_rest import answers, request_bodies
from puna_rest.bodies import native
from puna_rest.core import CORE, metadata
from puna_rest.translate import models as models_json

COPILOT = "GitHubCopilotChat/"


async def tags(request: web.Request) -> web.StreamResponse:
    """GET, HEAD /api/tags."""
    response = await listed(request)
    return answers.text(request, await offload_if_heavy(weight_of_message(response), _tags, response))


async def ps(request: web.Request) -> web.StreamResponse:
    """GET /api/ps."""
    method = partial(request.app[CORE].models.ListLoadedModels, metadata=metadata())
    response = await read_pages(method, models_pb2.ListLoadedModelsRequest())
    return answers.json(request, models_json.ps(response))


async def show(request: web.Request) -> web.StreamResponse:
    """POST /api/show."""
    document, body = await request_bodies.native(request, native.SHOW, small=True)
    message = await offload_if_heavy(document.weight, models_json.show_request, document, body)
    response = await request.app[CORE].models.GetModel(message, metadata=metadata())
    basename = body["model"] if request.headers.get("User-Agent", "").startswith(COPILOT) else ""
    return answers.text(request, await offload_if_heavy(weight_of_message(response), _show, response, basename))


async def copy(request: web.Request) -> web.StreamResponse:
    """POST /api/copy."""
    _, body = await request_bodies.native(request, native.COPY, small=True)
    message = models_pb2.CopyModelRequest(source=body["source"], destination=body["destination"])
    await request.app[CORE].models.CopyModel(message, metadata=metadata())
    return answers.empty()


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /api/delete."""
    _, body = await request_bodies.native(request, native.DELETE, small=True)
    message = models_pb2.DeleteModelRequest(name=body["model"] or body["name"])
    await request.app[CORE].models.DeleteModel(message, metadata=metadata())
    return answers.empty()


async def listed(request: web.Request) -> models_pb2.ListModelsResponse:
    """Return the list of all models."""
    method = partial(request.app[CORE].models.ListModels, metadata=metadata())
    return await read_pages(method, models_pb2.ListModelsRequest())


def _tags(response: models_pb2.ListModelsResponse) -> str:
    return gojson.dumps(models_json.tags(response))


def _show(response: models_pb2.GetModelResponse, basename: str) -> str:
    return gojson.dumps(models_json.show(response, basename))
