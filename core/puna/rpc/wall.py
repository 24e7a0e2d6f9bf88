"""Where errors become statuses, and where a call's end becomes the end of the work behind it.

Handlers are written as coroutines (streaming ones write to their context), so that a cancelled call is a CancelledError
in the handler's own frame, wherever it waits, and everything it entered is left at once. A generator handler would be
suspended at its `yield` just then, and be closed only when somebody collects it.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias, TypeVar, cast

import grpc
import grpc.aio

from puna.errors import PunaError, StoreFailedError
from puna.rpc.status import LONG_ERRORS, code_of, short, trailers
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

S = TypeVar("S")
Request = TypeVar("Request")
Response = TypeVar("Response")
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = Callable[[S, Request, Context], Awaitable[Response]]


class CancelledByRequestError(Exception):
    """Somebody cancelled this call through ServerService."""


def unary(handler: Handler[S, Request, Response]) -> Handler[S, Request, Response]:
    """Make a handler end with the status of what it raises."""

    @functools.wraps(handler)
    async def guarded(servicer: S, request: Request, context: Context) -> Response:
        return await _guarded(handler, servicer, request, context)

    return guarded


def streaming(
    handler: Handler[S, Request, None],
) -> Callable[[S, Request, Context], AsyncIterator[Any]]:
    """Do the same for a handler that writes its answers to the context. Its type is the one that servicers declare."""
    return cast("Callable[[S, Request, Context], AsyncIterator[Any]]", unary(handler))


async def _guarded(handler: Handler[S, Request, Response], servicer: S, request: Request, context: Context) -> Response:
    try:
        return await handler(servicer, request, context)
    except PunaError as error:
        failure = error
    except CancelledByRequestError:
        await end(context, grpc.StatusCode.CANCELLED, "the request was cancelled by another one")
    except asyncio.CancelledError as error:
        if cancelled():
            raise
        await _unexpected(handler, error, context)  # something that the handler waited for was cancelled by others
    except grpc.aio.BaseError:
        raise
    except (ConnectionError, TimeoutError) as error:
        await _unexpected(handler, error, context)
    except OSError as error:
        failure = StoreFailedError(error)
        log.error("%s failed: %s: %s", handler.__qualname__, failure, summarize(error))
    except Exception as error:
        await _unexpected(handler, error, context)
    metadata = dict(context.invocation_metadata() or ())
    failure.__traceback__ = None  # it leads to this frame, which would keep the request until garbage is collected
    whole_text = metadata.get(LONG_ERRORS) == "1"
    await end(context, code_of(failure), short(str(failure)), trailers(failure, whole_text=whole_text))
    raise failure


async def end(
    context: Context, code: grpc.StatusCode, text: str, trailing: tuple[tuple[str, bytes], ...] = ()
) -> NoReturn:
    """End a call with a status. CancelledError: the client has gone in this moment, and no status can be sent."""
    try:
        await context.abort(code, text, trailing)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError("a call goes on that was ended")


def cancelled() -> bool:
    """Say whether the current task was asked to end. A CancelledError alone does not tell whose end was asked for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _unexpected(handler: Handler[S, Request, Response], error: BaseException, context: Context) -> NoReturn:
    log.error("%s failed: %s", handler.__qualname__, summarize(error))
    await end(context, grpc.StatusCode.INTERNAL, "internal error, see the server's log")
