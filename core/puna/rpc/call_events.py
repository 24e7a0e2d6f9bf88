"""Publishes an event at the end of each gRPC call, of every service, with its status code and duration."""

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import grpc

from puna import events
from puna.rpc.error_boundary import Context
from puna.rpc.handlers import Behaviour, wrapped

_NAMES: Final[dict[object, str]] = {code.value[0]: code.name for code in grpc.StatusCode}


def reporting(service: str, handlers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the handlers of a service, each of which publishes events.CallEnded."""
    return wrapped(handlers, partial(_reporting, service))


def _reporting(service: str, method: str, behaviour: Behaviour) -> Behaviour:
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
