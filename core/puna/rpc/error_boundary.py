"""The error boundary of gRPC handlers: exceptions become statuses.

Handlers are coroutines, also the streaming ones, which write to their context. When a call is cancelled, grpc.aio
raises CancelledError in the coroutine's own frame, at the point where it waits, and all its contexts are left at once.
An asynchronous generator would stay suspended at its `yield` and be closed only by the garbage collector.

A CancelledError has two meanings: the call was cancelled, or a task that the handler awaits was cancelled by other
code. `cancelled` tells them apart. The latter is an internal error, and the client gets a status.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from puna.errors import InvalidModelNameError, ModelRequiredError, PunaError, StoreFailedError
from puna.rpc.status import LONG_ERRORS, code_of, short, trailers
from puna.rpc.wording import words
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

S = TypeVar("S")
Request = TypeVar("Request")
Response = TypeVar("Response")
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = Callable[[S, Request, Context], Awaitable[Response]]


class CancelledByRequestError(Exception):
    """CancelRequests of ServerService cancelled this call."""


def unary(handler: Handler[S, Request, Response]) -> Handler[S, Request, Response]:
    """Wrap a handler so that exceptions end the call with their status."""

    @functools.wraps(handler)
    async def guarded(servicer: S, request: Request, context: Context) -> Response:
        return await _guarded(handler, servicer, request, context)

    return guarded


def streaming(
    handler: Handler[S, Request, None],
) -> Callable[[S, Request, Context], AsyncIterator[Any]]:
    """Wrap a handler that writes to its context. Servicers declare streaming methods as iterators, hence the cast."""
    return cast("Callable[[S, Request, Context], AsyncIterator[Any]]", unary(handler))


async def _guarded(handler: Handler[S, Request, Response], servicer: S, request: Request, context: Context) -> Response:
    try:
        return await handler(servicer, request, context)
    except PunaError as error:
        failure = error
    # The client did nothing wrong, so it gets a status that says who ended its call.
    except CancelledByRequestError:
        await end(context, grpc.StatusCode.CANCELLED, "the request was cancelled through CancelRequests")
    except asyncio.CancelledError as error:
        if cancelled():
            raise
        await _unexpected(handler, error, context)  # a task that the handler awaits was cancelled, not the call
    # AbortError and the like: the handler has ended the call itself.
    except grpc.aio.BaseError:
        raise
    # Both are subclasses of OSError and must come before it: they come from sockets, not from the store's disk.
    except (ConnectionError, TimeoutError) as error:
        await _unexpected(handler, error, context)
    # The errors that are left come from the disk: it is full, read-only or broken.
    except OSError as error:
        failure = StoreFailedError(error)
        log.error("%s failed: %s: %s", handler.__qualname__, failure, summarize(error))
    except Exception as error:
        await _unexpected(handler, error, context)
    metadata = dict(context.invocation_metadata() or ())
    if isinstance(failure, ModelRequiredError | InvalidModelNameError):
        _name_field(failure, request)
    failure.__traceback__ = None  # its frames would hold the request until the next garbage collection
    # Other clients accept 8 KiB of trailers. A longer text would break the call instead of explaining it.
    whole_text = metadata.get(LONG_ERRORS) == "1"
    await refuse(context, failure, whole_text=whole_text)
    raise failure


def _name_field(error: PunaError, request: object) -> None:
    """Note the field of a request that has the model's name, unless the error has a field. Only this layer knows it."""
    fields = request.DESCRIPTOR.fields_by_name if isinstance(request, Message) else ()
    if found := next((name for name in ("model", "name") if name in fields), ""):
        error.info.setdefault("field", found)


async def refuse(context: Context, error: PunaError, *, whole_text: bool = False) -> NoReturn:
    """End a call with the status of an error. `whole_text`: whether the client takes a text of any length."""
    await end(context, code_of(error), short(words(error)), trailers(error, whole_text=whole_text))


async def end(
    context: Context, code: grpc.StatusCode, text: str, trailing: tuple[tuple[str, str | bytes], ...] = ()
) -> NoReturn:
    """End a call with a status. CancelledError: the client has just left, so no status can be sent."""
    try:
        await context.abort(code, text, trailing)
    # grpc.aio raises this for a call that is over already.
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError("abort() returned")


def cancelled() -> bool:
    """Return whether the current task was cancelled, as opposed to a task that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _unexpected(handler: Handler[S, Request, Response], error: BaseException, context: Context) -> NoReturn:
    log.error("%s failed: %s", handler.__qualname__, summarize(error))
    await end(context, grpc.StatusCode.INTERNAL, "internal error, see the server's log")
