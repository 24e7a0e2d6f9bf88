"""/api/generate and /api/chat."""

import time
from typing import Any

from aiohttp import web

from puna.offload import offload_if_heavy, weight_of_message
from puna_rest import answers, request_bodies, streams
from puna_rest.bodies import native
from puna_rest.core import CORE, metadata
from puna_rest.translate import chat as chat_json
from puna_rest.translate import generate as generate_json


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /api/generate."""
    start = time.time_ns()
    document, body = await request_bodies.native(request, native.GENERATE)
    message = await offload_if_heavy(document.weight, generate_json.request, document, body, start)
    answer, stream = generate_json.Answer(body["model"]), body["stream"] is not False
    del document, body  # both may be much larger than the message, and would live until the answer ends
    service = request.app[CORE].generate
    if stream:
        return await _streamed(request, service.StreamGenerate(message, metadata=metadata()), answer)
    response = await service.Generate(message, metadata=metadata())
    return answers.text(request, await offload_if_heavy(weight_of_message(response), answer.full_answer, response))


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /api/chat."""
    start = time.time_ns()
    document, body = await request_bodies.native(request, native.CHAT)
    message = await offload_if_heavy(document.weight, chat_json.request, document, body, start)
    answer, stream = chat_json.Answer(body["model"]), body["stream"] is not False
    del document, body
    service = request.app[CORE].chat
    if stream:
        return await _streamed(request, service.StreamChat(message, metadata=metadata()), answer)
    response = await service.Chat(message, metadata=metadata())
    return answers.text(request, await offload_if_heavy(weight_of_message(response), answer.full_answer, response))


async def _streamed(
    request: web.Request, call: streams.Call[Any], answer: generate_json.Answer | chat_json.Answer
) -> web.StreamResponse:
    return await streams.relay(
        request,
        call,
        streams.NDJSON,
        answer.lines,
        streams.ndjson_error,
        single=answer.single,
        early_error=answers.native_stream_error,
    )
