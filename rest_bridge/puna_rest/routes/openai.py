"""/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models."""

import time

from aiohttp import web

from puna.go import json as gojson
from puna.go.json_scanner import Document
from puna.offload import offload_if_heavy, weight_of_message
from puna_client.v1 import chat_pb2, generate_pb2, models_pb2
from puna_rest import answers, cached_counts, request_bodies, streams
from puna_rest.api_clients import is_api_client
from puna_rest.bodies import openai
from puna_rest.core import CORE, metadata
from puna_rest.errors import NativeError, RestError
from puna_rest.gobody.kinds import Struct
from puna_rest.routes import echo
from puna_rest.routes.embed import refuse_name
from puna_rest.routes.models import listed
from puna_rest.routing import PARAMETER
from puna_rest.translate import cloud
from puna_rest.translate.openai import chat_answer, chat_request, completions, embeddings, models
from puna_rest.translate.openai import echo as echo_json


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    start = time.time_ns()
    document, body = await request_bodies.compatible(request, openai.CHAT_COMPLETION)
    chat_request.check_messages(body)
    message = await offload_if_heavy(document.weight, chat_request.request, document, body, start)
    service = request.app[CORE].chat
    if not body["stream"]:
        response = await service.Chat(message, metadata=metadata())
        cached_counts.settle(request, response.finish)
        return answers.line(
            request, await offload_if_heavy(weight_of_message(response), _chat, body["model"], response)
        )
    message.tool_call_deltas = bool(message.tools) and is_api_client(request)
    chunks = chat_answer.Chunks(
        body["model"],
        include_usage=_include_usage(body["stream_options"]),
        call_deltas=message.tool_call_deltas,
    )
    call = service.StreamChat(message, metadata=metadata())
    write = cached_counts.settled(request, chunks.write)
    return await streams.relay(request, call, streams.SSE, write, chat_answer.error_event)


async def completion(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions."""
    start = time.time_ns()
    document, body = await request_bodies.compatible(request, _completion_kind)
    if echo_json.wanted(document):
        return await echo.completion(request, document, body)
    message = await offload_if_heavy(document.weight, completions.request, document, body, start)
    service = request.app[CORE].generate
    if not body["stream"]:
        response = await service.Generate(message, metadata=metadata())
        cached_counts.settle(request, response.finish)
        return answers.line(
            request, await offload_if_heavy(weight_of_message(response), _completion, body["model"], response)
        )
    chunks = completions.Chunks(body["model"], include_usage=_include_usage(body["stream_options"]))
    call = service.StreamGenerate(message, metadata=metadata())
    write = cached_counts.settled(request, chunks.write)
    return await streams.relay(request, call, streams.SSE, write, chat_answer.error_event)


async def embed(request: web.Request) -> web.StreamResponse:
    """POST /v1/embeddings."""
    start = time.time_ns()
    document, body = await request_bodies.compatible(request, openai.EMBEDDINGS)
    try:
        message = await offload_if_heavy(document.weight, embeddings.request, body, start)
    except RestError as error:
        if error.reason:  # Ollama forwards to its own route here, which checks the name first
            await refuse_name(request.app[CORE], body["model"])
        raise
    response = await request.app[CORE].embed.Embed(message, metadata=metadata())
    return answers.line(request, await offload_if_heavy(weight_of_message(response), embeddings.answer, body, response))


async def list_models(request: web.Request) -> web.StreamResponse:
    """GET /v1/models."""
    response = await listed(request)
    return answers.line(request, await offload_if_heavy(weight_of_message(response), _listing, response))


async def get_model(request: web.Request) -> web.StreamResponse:
    """GET /v1/models/{model}."""
    name = request.match_info[PARAMETER]
    if cloud.names_cloud(name):
        raise NativeError(403, cloud.DETAILS_REFUSED)
    response = await request.app[CORE].models.GetModel(models_pb2.GetModelRequest(name=name), metadata=metadata())
    return answers.json_line(request, models.model(response.model, name))


def _completion_kind(document: Document) -> Struct:
    return openai.ECHO if echo_json.wanted(document) else openai.COMPLETION


def _chat(model: str, response: chat_pb2.ChatResponse) -> str:
    return gojson.dumps(chat_answer.completion(model, response))


def _completion(model: str, response: generate_pb2.GenerateResponse) -> str:
    return gojson.dumps(completions.completion(model, response))


def _listing(response: models_pb2.ListModelsResponse) -> str:
    return gojson.dumps(models.listing(response))


def _include_usage(stream_options: dict[str, bool] | None) -> bool:
    return stream_options is not None and stream_options["include_usage"]
