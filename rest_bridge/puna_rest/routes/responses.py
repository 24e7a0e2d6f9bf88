"""/v1/responses."""

import time

from aiohttp import web

from puna.offload import offload_if_heavy, weight_of_message
from puna_rest import answers, cached_counts, request_bodies, streams
from puna_rest.api_clients import is_api_client
from puna_rest.bodies.responses import RESPONSES
from puna_rest.core import CORE, metadata
from puna_rest.errors import Failure
from puna_rest.response_items import ITEMS
from puna_rest.translate import search
from puna_rest.translate.parts import full_answer
from puna_rest.translate.responses import answer, request, stream


async def responses(http_request: web.Request) -> web.StreamResponse:
    """POST /v1/responses."""
    start = time.time_ns()
    document, body = await request_bodies.compatible(http_request, RESPONSES)
    items = http_request.app[ITEMS]
    body = {**body, "input": {**body["input"], "items": items.resolve(body["input"]["items"])}}
    message = await offload_if_heavy(document.weight, request.request, document, body, start)
    keep = items.forget if body["store"] == "false" else items.keep
    service = http_request.app[CORE].chat
    if not body["stream"]:
        response = await service.Chat(message, metadata=metadata())
        cached_counts.settle(http_request, response.finish)
        part = full_answer(response)
        if request.has_web_search(body):
            search.refuse(part.tool_calls)
        found = await offload_if_heavy(
            document.weight + weight_of_message(response), answer.full_answer, document, body, part
        )
        keep(found["output"])
        return answers.json_line(http_request, found)
    # A call of the built-in search never reaches the client.
    offers = bool(message.tools) and not request.has_web_search(body)
    message.tool_call_deltas = offers and is_api_client(http_request)
    events = stream.Events(document, body, keep, call_deltas=message.tool_call_deltas)
    call = service.StreamChat(message, metadata=metadata())
    return await streams.relay(
        http_request,
        call,
        streams.LASTING_SSE,
        cached_counts.settled(http_request, events.write),
        events.write_error,
        early_error=_early_error,
        weigh=events.weigh,
    )


def _early_error(http_request: web.BaseRequest, failure: Failure) -> web.Response:
    response = answers.openai_error(http_request, failure)
    response.headers.update(streams.LASTING)
    return response
