"""The events of the core, to which metrics, traces and logs listen.

The code that does something publishes an event about it here and knows nothing of the listeners. Without a listener
for an event's class, an event is not even built: publishers ask `wanted` first where building costs something.

Listeners are called in place, on the event loop, so they must return soon. An exception in a listener is logged and
reaches neither the publisher nor the other listeners.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from puna.rate_limited_log import RateLimitedLogger

log = logging.getLogger(__name__)

E = TypeVar("E")
Listener: TypeAlias = Callable[[Any], None]

_failures = RateLimitedLogger(log, 60.0)
_listeners: dict[type, list[Listener]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEnded:
    """A request that ran a model, or waited to, has ended. Durations are in seconds."""

    id: str
    model: str
    """The model's name in the list of models; the name in the request, without the tag "latest", if there is none."""
    method: str
    """The RPC's method, such as "StreamChat"."""
    key: str
    """Name of the caller's API key; empty if it has none."""
    outcome: str
    """The reason why the answer ended, such as "stop", or that of the error, such as "CONTEXT_OVERFLOW"."""
    failed: bool
    phase: str
    """The phase in which the request ended: "queued", "loading", "prefill" or "decode"."""
    seconds: float
    """From its arrival to its end."""
    queue_seconds: float = 0.0
    """Until it had a model and a slot, without the time of loading."""
    load_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    truncated_tokens: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    vectors: int = 0
    """Number of embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTimed:
    """The times of an answer's deltas, published before the end of its request. Without a listener none is kept."""

    model: str
    """As in RequestEnded."""
    arrivals: tuple[float, ...]
    """Seconds from the arrival of the request to each of its deltas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoaded:
    """A model was loaded."""

    model: str
    backend: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRemoved:
    """A model is no longer loaded."""

    model: str
    cause: str
    """"expired", "evicted", "unloaded", "crashed" or "ended" (with the server)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDied:
    """The host of a loaded model has ended without being asked to."""

    model: str
    status: str
    """The signal's name, such as "SIGKILL"; "exit N"; "hang" for a host that was killed because it did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """A gRPC call has ended, of any service."""

    service: str
    method: str
    code: str
    """Name of the status code, such as "OK"."""
    seconds: float


def subscribe(kind: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
    """Call `listener` with each event of a class from now on. Return the function that ends this."""
    listeners = _listeners.setdefault(kind, [])
    listeners.append(listener)
    return lambda: listeners.remove(listener)


def wanted(kind: type) -> bool:
    """Return whether events of a class have a listener."""
    return bool(_listeners.get(kind))


def publish(event: object) -> None:
    """Tell the listeners of an event."""
    for listener in tuple(_listeners.get(type(event), ())):
        try:
            listener(event)
        except Exception as error:  # a broken exporter must not break requests
            _failures.warn("a listener to %s failed: %s", type(event).__name__, error)
