"""Wrapping the handlers of a service, whatever kind of method they serve.

The gate and the events of calls wrap handlers instead of being interceptors. So they also stand in front of the channel
inside the process, and they see how a call ends, which an interceptor of grpc.aio does not.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from puna.rpc.error_boundary import Context

_KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Behaviour: TypeAlias = Callable[[Any, Context], Any]
"""The function that serves a method: a coroutine function, or an async generator function."""


def wrapped(handlers: Mapping[str, Any], wrap: Callable[[str, Behaviour], Behaviour]) -> dict[str, Any]:
    """Return the handlers of a service with other behaviours. `wrap` takes a method's name and its behaviour."""
    return {
        name: handler._replace(**{kind: wrap(name, found) for kind in _KINDS if (found := getattr(handler, kind))})
        for name, handler in handlers.items()
    }
