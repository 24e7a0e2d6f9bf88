"""The metadata of the request that the current task works for: its id, and its place in a distributed trace.

The core passes it from the client to the host, and a backend that forwards requests passes it to its upstream, so that
traces and logs of all servers can be joined. If the core exports traces, `traceparent` and `tracestate`
(https://www.w3.org/TR/trace-context/) name its own span; otherwise they are handed on as they came.

It is a context variable. A task has the metadata of the task that created it.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

SESSION: Final = "x-session-id"
"""The name of the metadata that the requests of one conversation share. A model whose routing is `session` sends them
to the same replica."""
KEYS: Final = ("traceparent", "tracestate", "x-request-id", SESSION)
"""The names of the metadata that is passed on. gRPC metadata and HTTP headers use the same names."""
LONGEST: Final = 512
"""Characters of a value. The specification of traces asks for as many; longer values are not passed on."""
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_current: ContextVar[Mapping[str, str]] = ContextVar("request_metadata", default=_NONE)


def request_metadata() -> Mapping[str, str]:
    """Return the metadata of the current task's request, by names in KEYS. What the client did not send is absent."""
    return _current.get()


def enter_request(given: Mapping[str, object]) -> None:
    """Make the values of KEYS in `given` the metadata of the current task's request.

    Values that no header can have are left out.
    """
    _current.set({name: value for name in KEYS if isinstance(value := given.get(name), str) and _fits(value)})


def _fits(value: str) -> bool:
    return 0 < len(value) <= LONGEST and value.isascii() and value.isprintable()
