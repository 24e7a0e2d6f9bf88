"""Streamed responses: NDJSON and server-sent events.

The status line is sent with the first piece and not before, so that an error that occurs earlier has a status of its
own. After the first piece an error can only be written into the stream.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar, cast

import grpc.aio
from aiohttp import web

from puna.go import json as gojson
from puna.offload import LIGHT, offload_if_heavy, weight_of_message
from puna_rest import answers
from puna_rest.errors import Failure, RestError, failure

NDJSON: Final = {"Content-Type": "application/x-ndjson"}
SSE: Final = {"Content-Type": "text/event-stream"}
LASTING: Final = {"Cache-Control": "no-cache", "Connection": "keep-alive"}
LASTING_SSE: Final = {**SSE, **LASTING}
_CUT: Final = "cut"
"""Key in a request's match_info, set once streaming has begun: the function that ends the stream with a Failure."""
Message_co = TypeVar("Message_co", covariant=True)
Message = TypeVar("Message")


class Call(Protocol[Message_co]):
    """A streaming RPC."""

    def __aiter__(self) -> AsyncIterator[Message_co]:
        """Iterate over its messages."""

    def cancel(self) -> bool:
        """Cancel it. Has no effect once it has ended."""


def ndjson_error(failed: Failure) -> str:
    """Return the last line of an NDJSON stream that failed."""
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
    """Stream the messages of a call to the client. All text for one message is one write.

    Cancellation: when the client hangs up, aiohttp cancels this coroutine, which cancels the call.

    Args:
        request: the client's request.
        call: the RPC.
        headers: headers of the response.
        write: returns the text for a message; an empty text is not sent.
        write_error: returns the text that ends a stream that has begun and then failed.
        single: returns a whole body if the first message is to be sent as a plain response, else an empty text.
        early_error: returns the response to a gRPC error before anything is sent. Without it the error is raised.
        weigh: returns the cost of writing a message, by which puna.offload chooses between the loop and a thread.

    Raises:
        grpc.aio.AioRpcError, RestError: the call failed before anything was sent.
    """
    response = web.StreamResponse(headers=headers)
    tail = ""
    try:
        try:
            async for message in call:
                weight = weigh(message)
                if not response.prepared and single and (whole := await offload_if_heavy(weight, single, message)):
                    return answers.text(request, whole)
                # Almost every message is one token, for which even an empty coroutine counts.
                if piece := write(message) if weight <= LIGHT else await offload_if_heavy(weight, write, message):
                    if not response.prepared:
                        # From here on the status line is sent, and errors belong into the stream.
                        await response.prepare(request)
                        on_cut(request, lambda failed: _end(response, write_error(failed)))
                    await response.write(piece.encode())
        except (grpc.aio.AioRpcError, RestError) as error:
            failed = failure(error)
            if not response.prepared and early_error:
                return early_error(request, failed)
            if not response.prepared:
                raise
            tail = write_error(failed)
        # The stream was empty: the client still expects headers and an end.
        if not response.prepared:
            await response.prepare(request)
        return await _end(response, tail)
    finally:
        call.cancel()  # stops decoding if the client hung up, and has no effect on a call that has ended


def on_cut(request: web.BaseRequest, end: Callable[[Failure], Awaitable[web.StreamResponse]]) -> None:
    """Have `cut` end the request's stream, which has begun, with a function."""
    _notes(request)[_CUT] = end


async def cut(request: web.BaseRequest, failed: Failure) -> web.StreamResponse | None:
    """End a request's stream with an error and return the response, or None if no stream has begun."""
    end = _notes(request).get(_CUT)
    return await end(failed) if end is not None else None


def _notes(request: web.BaseRequest) -> dict[str, Callable[[Failure], Awaitable[web.StreamResponse]]]:
    """Return the mapping that holds the request's _CUT entry."""
    return cast("dict[str, Any]", request.match_info) if isinstance(request, web.Request) else {}


async def _end(response: web.StreamResponse, tail: str) -> web.StreamResponse:
    """Write a last text, if there is one, and end the stream."""
    if tail:
        await response.write(tail.encode())
    await response.write_eof()
    return response
