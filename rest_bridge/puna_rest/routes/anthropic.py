"""/v1/messages and /v1/messages/count_tokens."""

import time

from aiohttp import web

from puna.offload import offload_if_heavy, weight_of_message
from puna_rest import answers, cached_counts, request_bodies, streams
from puna_rest.api_clients import is_api_client
from puna_rest.bodies.anthropic import MESSAGES
from puna_rest.core import CORE, metadata
from puna_rest.errors import Failure
from puna_rest.translate.anthropic import answer, request
from puna_rest.translate.anthropic.estimate import estimate
from puna_rest.translate.parts import full_answer


async def messages(http_request: web.Request) -> web.StreamResponse:
    """POST /v1/messages."""
    start = time.time_ns()
    document, body = await request_bodies.compatible(http_request, MESSAGES)
    message = await offload_if_heavy(document.weight, request.request, document, body, start)
    form = {"searching": request.has_web_search(body), "signed": "anthropic-version" in http_request.headers}
    service = http_request.app[CORE].chat
    if not body["stream"]:
        response = await service.Chat(message, metadata=metadata())
        cached_counts.settle(http_request, response.finish)
        written = await offload_if_heavy(
            weight_of_message(response), answer.message, body["model"], full_answer(response), **form
        )
        return answers.json_line(http_request, written)
    # A call of the built-in search never reaches the client.
    message.tool_call_deltas = bool(message.tools) and is_api_client(http_request) and not form["searching"]
    tokens = await offload_if_heavy(document.weight, estimate, document, body)
    events = answer.Events(body["model"], tokens, **form, call_deltas=message.tool_call_deltas)
    call = service.StreamChat(message, metadata=metadata())
    write = cached_counts.settled(http_request, events.write)
    return await streams.relay(
        http_request, call, streams.LASTING_SSE, write, answer.error_event, early_error=_early_error
    )


async def count_tokens(http_request: web.Request) -> web.StreamResponse:
    """POST /v1/messages/count_tokens."""
    start = time.time_ns()
    document, body = await request_bodies.compatible(http_request, MESSAGES)
    message = await offload_if_heavy(document.weight, request.count_request, document, body, start)
    counted = await http_request.app[CORE].tokenize.CountTokens(message, metadata=metadata())
    return answers.json_line(http_request, {"input_tokens": counted.prompt_tokens})


def error(http_request: web.BaseRequest, failure: Failure) -> web.Response:
    """Return the error response of /v1/messages."""
    return answers.v1_error(http_request, failure, answer.error(failure))


def _early_error(http_request: web.BaseRequest, failure: Failure) -> web.Response:
    response = error(http_request, failure)
    response.headers.update(streams.LASTING)
    return response
