"""/api/generate and /api/chat."""

import time

from aiohttp import web

from puna_rest import answers, reading, streams
from puna_rest.bodies import native
from puna_rest.core import CORE, METADATA
from puna_rest.translate import chat as chat_json
from puna_rest.translate import generate as generate_json


async def generate(request: web.Request) -> web.StreamResponse:
    """POST /api/generate."""
    start = time.time_ns()
    document, body = await reading.native(request, native.GENERATE)
    message = generate_json.request(document, body, start)
    answer = generate_json.Answer(body["model"])
    service = request.app[CORE].generate
    if body["stream"] is False:
        return answers.text(request, answer.whole(await service.Generate(message, metadata=METADATA)))
    call = service.StreamGenerate(message, metadata=METADATA)
    return await streams.relay(
        request,
        call,
        streams.NDJSON,
        answer.lines,
        streams.ndjson_error,
        single=answer.single,
        early_error=answers.native_stream_error,
    )


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /api/chat."""
    start = time.time_ns()
    document, body = await reading.native(request, native.CHAT)
    message = chat_json.request(document, body, start)
    answer = chat_json.Answer(body["model"])
    service = request.app[CORE].chat
    if body["stream"] is False:
        return answers.text(request, answer.whole(await service.Chat(message, metadata=METADATA)))
    call = service.StreamChat(message, metadata=METADATA)
    return await streams.relay(
        request,
        call,
        streams.NDJSON,
        answer.lines,
        streams.ndjson_error,
        single=answer.single,
        early_error=answers.native_stream_error,
    )
