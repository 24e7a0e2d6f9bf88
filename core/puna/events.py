"""The events of the core, to which metrics, traces and logs listen.

The code that does something publishes an event about it here and knows nothing of the listeners. Without a listener
for an event's class, an event is not even built: publishers ask `wanted` first where building costs something.

Listeners are called in place, on the event loop, so they must return soon. An event about a request is published in the
task of the request or in a task that this one has created. So context variables that a listener sets at RequestBegan
tell it at later events which request they are about. An exception in a listener is logged and
reaches neither the publisher nor the other listeners.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from puna.errors import PunaError
from puna.rate_limited_log import RateLimitedLogger

log = logging.getLogger(__name__)

E = TypeVar("E")
Listener: TypeAlias = Callable[[Any], None]

_failures = RateLimitedLogger(log, 60.0)
_listeners: dict[type, list[Listener]] = {}
choice: Final[ContextVar[int]] = ContextVar("choice", default=0)
"""Index of the answer for which the current task works, if its request asks for several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBegan:
    """A request has begun: one that runs a model or changes the store. RequestEnded follows."""

    id: str
    model: str
    """The name in the request."""
    method: str
    """The RPC's method, such as "StreamChat"."""
    key: str
    """Name of the caller's API key; empty if it has none."""
    key_id: str = ""
    """Id of that key, which no other key ever has."""
    batch: str
    """Id of the batch whose request it is; empty if it is none of a batch."""
    http_route: str = ""
    """HTTP method and route, such as "POST /api/chat"; empty if the request did not come through a bridge here."""
    start_ns: int
    """In nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class RequestRead:
    """The message of a request that runs a model was read. The parts of StreamEmbed have an event each."""

    request: object
    """A GenerateRequest, ChatRequest, EmbedRequest, RerankRequest or ScoreRequest of `puna.serving.requests`."""


@dataclass(frozen=True, slots=True)
class ModelLeased:
    """A request has its model. The parts of StreamEmbed have a lease each."""

    model: str
    """The model's name in the list of models."""
    backend: str


@dataclass(frozen=True, slots=True)
class SequenceBegan:
    """A request has submitted a sequence to its model. The sequence may still have to wait for a slot."""

    request: object
    """A SequenceRequest of `puna.backend`, as the backend gets it."""
    choice: int
    """Index of the answer to which it belongs, if the request asks for several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEnded:
    """A stage of a request has ended. Stages of one request may lie beside each other."""

    stage: str
    """"queue", "load", "render", "prefill", "decode", "embed" or "rerank". A request that does not wait has no "queue",
    and one whose model is loaded has no "load"."""
    start_ns: int
    """In nanoseconds since 1970."""
    end_ns: int
    choice: int = 0
    """Index of the answer to which it belongs, if the request asks for several."""
    error: str = ""
    """Why it did not come to its end: a reason, or the name of an exception's class; empty if it did."""
    facts: Mapping[str, str | int] = field(default_factory=dict)
    """Counts and names, such as "output_tokens" and "backend"."""


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """The text of an answer, published before the end of its request. Without a listener none is kept."""

    deltas: tuple[object, ...]
    """Each a Delta of `puna.serving.answers`."""


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
    error: str = ""
    """The text of the error, which may quote the request; empty if it did not fail, or was cancelled."""
    arrival_position: int = 0
    """Number of requests before it in the queue when it began to wait; 0: it did not wait for a slot."""
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
    reasons: tuple[str, ...] = ()
    """Why each of its answers ended, by their indexes; empty if it has none."""
    first_token_seconds: float = 0.0
    """From its arrival to the first delta of its answer; 0 without a delta."""
    traceparent: str = ""
    """The trace and the span on whose behalf hosts and upstreams were called; empty if it has no trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRefused:
    """A call with a known API key was refused before its request was read. Other events about it do not follow."""

    id: str
    service: str
    method: str
    key: str
    """Name of the key."""
    key_id: str
    http_route: str
    """As in RequestBegan."""
    reason: str
    """The reason of the error, such as "RATE_LIMITED"."""
    error: str
    """The text of the error."""


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
class ModelLoadFailed:
    """A model could not be loaded."""

    model: str
    backend: str
    """Empty if no backend serves the model."""
    reason: str
    """The reason of the error, such as "LOAD_FAILED"."""
    error: str
    """The text of the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRemoved:
    """A model is no longer loaded."""

    model: str
    cause: str
    """"expired", "evicted", "unloaded", "crashed" or "ended" (with the server)."""
    evicted_for: str = ""
    """The model for which it made room, if it was evicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDied:
    """The host of a loaded model has ended without being asked to."""

    model: str
    status: str
    """The signal's name, such as "SIGKILL"; "exit N"; "hang" for a host that was killed because it did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost:
    """A node is gone: it does not answer, or refuses this core. Its hosts count as ended."""

    node: str
    """Its address."""
    hosts: int
    """Number of hosts that it ran for this core."""
    error: str
    """Why it counts as gone."""


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


@contextmanager
def stage(name: str, **facts: str | int) -> Generator[None]:
    """Publish that a stage of a request has ended when the block ends. See StageEnded."""
    if not wanted(StageEnded):
        yield
        return
    start_ns, error = time.time_ns(), ""
    try:
        yield
    except BaseException as failure:
        error = reason_of(failure)
        raise
    finally:
        publish_stage(name, start_ns, time.time_ns(), error, **facts)


def publish_stage(name: str, start_ns: int, end_ns: int, error: str = "", **facts: str | int) -> None:
    """Publish that a stage of a request has ended."""
    publish(StageEnded(stage=name, start_ns=start_ns, end_ns=end_ns, choice=choice.get(), error=error, facts=facts))


def reason_of(failure: BaseException) -> str:
    """Return the reason of an exception that ended a stage; the name of its class if it has none."""
    if isinstance(failure, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    return failure.reason if isinstance(failure, PunaError) else type(failure).__name__
