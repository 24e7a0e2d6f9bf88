"""Publishes an event at the end of each gRPC call, of every service, with its status code and duration.

It wraps the handlers, as the gate does, since interceptors of grpc.aio do not see the status of a call.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import grpc

from puna import events
from puna.rpc.error_boundary import Context

_KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
_NAMES: Final[dict[object, str]] = {code.value[0]: code.name for code in grpc.StatusCode}


def reporting(service: str, handlers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the handlers of a service, each of which publishes events.CallEnded."""
    return {name: _wrapped(service, name, handler) for name, handler in handlers.items()}


def _wrapped(service: str, method: str, handler: Any) -> Any:  # noqa: ANN401 - gRPC's handlers have no common type
    kinds = {kind: behaviour for kind in _KINDS if (behaviour := getattr(handler, kind))}
    return handler._replace(**{kind: _reporting(service, method, each) for kind, each in kinds.items()})


def _reporting(service: str, method: str, behaviour: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Any]:
    async def serve(request: object, context: Context) -> Any:  # noqa: ANN401 - any method's answer
        with _reported(service, method, context):
            return await behaviour(request, context)

    async def generate(request: object, context: Context) -> AsyncGenerator[Any]:
        with _reported(service, method, context):
            async for each in behaviour(request, context):
                yield each

    return generate if inspect.isasyncgenfunction(behaviour) else serve


@contextmanager
def _reported(service: str, method: str, context: Context) -> Generator[None]:
    if not events.wanted(events.CallEnded):
        yield
        return
    began, code = time.monotonic(), "OK"
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        code = grpc.StatusCode.CANCELLED.name
        raise
    except BaseException:
        code = _code(context)
        raise
    finally:
        seconds = time.monotonic() - began
        events.publish(events.CallEnded(service=service, method=method, code=code, seconds=seconds))


def _code(context: Context) -> str:
    """Return the name of the status with which a call was aborted."""
    found: object = context.code()
    if isinstance(found, grpc.StatusCode):
        return found.name
    return _NAMES.get(found, grpc.StatusCode.UNKNOWN.name)
