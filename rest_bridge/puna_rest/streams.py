"""Answers in pieces. Headers wait for the first piece, so that an error before it keeps its own status."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar, cast

import grpc.aio
from aiohttp import web

from puna.go import json as gojson
from puna.offload import aside, weight_of_message
from puna_rest import answers
from puna_rest.errors import Failure, failure

NDJSON: Final = {"Content-Type": "application/x-ndjson"}
SSE: Final = {"Content-Type": "text/event-stream"}
LASTING: Final = {"Cache-Control": "no-cache", "Connection": "keep-alive"}
LASTING_SSE: Final = {**SSE, **LASTING}
_CUT: Final = "cut"
"""Key in a request's match_info once its answer has begun to stream: what ends the stream with a Failure."""
Message_co = TypeVar("Message_co", covariant=True)
Message = TypeVar("Message")


class Call(Protocol[Message_co]):
    """A streaming call of the core."""

    def __aiter__(self) -> AsyncIterator[Message_co]:
        """Receive."""

    def cancel(self) -> bool:
        """Stop it."""


def ndjson_error(failed: Failure) -> str:
    """Return the line that ends a stream in which something went wrong."""
    return '{"error":' + gojson.string(failed.text) + "}\n"


async def relay(
    request: web.Request,
    call: Call[Message],
    headers: Mapping[str, str],
    write: Callable[[Message], str],
    write_error: Callable[[Failure], str],
    single: Callable[[Message], str] | None = None,
    early_error: Callable[[web.BaseRequest, Failure], web.Response] | None = None,
    weigh: Callable[[Message], int] = weight_of_message,
) -> web.StreamResponse:
    """Answer with what `write` makes of each message; all pieces of a message go out together.

    A first message of which `single` makes a text is answered by that, as if no stream had been asked for. An error
    before anything is written is answered by `early_error`, or else raised. Later the stream ends with what
    `write_error` makes of it; any other error is raised, and `cut` ends the stream. When the client hangs up,
    this is cancelled, and so is the call. `weigh` returns what it weighs to write a message, for puna.offload.
    """
    response = web.StreamResponse(headers=headers)
    tail = ""
    try:
        try:
            async for message in call:
                weight = weigh(message)
                if not response.prepared and single and (whole := await aside(weight, single, message)):
                    return answers.text(request, whole)
                if piece := await aside(weight, write, message):
                    if not response.prepared:
                        await response.prepare(request)
                        _kept(request)[_CUT] = lambda failed: _end(response, write_error(failed))
                    await response.write(piece.encode())
        except grpc.aio.AioRpcError as error:
            failed = failure(error)
            if not response.prepared and early_error:
                return early_error(request, failed)
            if not response.prepared:
                raise
            tail = write_error(failed)
        if not response.prepared:
            await response.prepare(request)
        return await _end(response, tail)
    finally:
        call.cancel()  # nothing happens when it is over; when the client is gone, the model stops


async def cut(request: web.BaseRequest, failed: Failure) -> web.StreamResponse | None:
    """End the stream that answers a request with an error, and return it; None: no stream has begun."""
    end = _kept(request).get(_CUT)
    return await end(failed) if end is not None else None


def _kept(request: web.BaseRequest) -> dict[str, Callable[[Failure], Awaitable[web.StreamResponse]]]:
    """Return where a request keeps how its stream ends: beside what the router found, as other notes of the bridge."""
    return cast("dict[str, Any]", request.match_info) if isinstance(request, web.Request) else {}


async def _end(response: web.StreamResponse, tail: str) -> web.StreamResponse:
    """End a stream, with a last word if there is one."""
    if tail:
        await response.write(tail.encode())
    await response.write_eof()
    return response
