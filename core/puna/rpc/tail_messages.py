"""Log lines and events of the server as messages of DiagnosticsService, and the streams that follow them."""

import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from google.protobuf.message import Message

from puna import events
from puna.diagnostics.log_lines import LogLine
from puna.diagnostics.server_events import ServerEvent
from puna.diagnostics.tail import Tail
from puna.errors import ServerEndingError
from puna.go.json import replace_lone_surrogates
from puna.rpc.error_boundary import Context
from puna.rpc.record_messages import duration, timestamp
from puna.serving.activity import Activity
from puna_client.v1 import diagnostics_pb2

T = TypeVar("T")
PAUSE: Final = 0.2
"""Seconds between two looks for new items: what comes together travels together."""
TOGETHER: Final = 200
"""Items in one message."""
_LEVELS: Final = (
    (logging.ERROR, diagnostics_pb2.LOG_LEVEL_ERROR),
    (logging.WARNING, diagnostics_pb2.LOG_LEVEL_WARNING),
    (logging.INFO, diagnostics_pb2.LOG_LEVEL_INFO),
    (logging.NOTSET, diagnostics_pb2.LOG_LEVEL_DEBUG),
)
_CAUSES: Final = {
    "expired": diagnostics_pb2.MODEL_REMOVAL_CAUSE_EXPIRED,
    "evicted": diagnostics_pb2.MODEL_REMOVAL_CAUSE_EVICTED,
    "unloaded": diagnostics_pb2.MODEL_REMOVAL_CAUSE_UNLOADED,
    "crashed": diagnostics_pb2.MODEL_REMOVAL_CAUSE_CRASHED,
    "ended": diagnostics_pb2.MODEL_REMOVAL_CAUSE_ENDED,
}


async def written(
    tail: Tail[T],
    message: Callable[[Sequence[tuple[int, T]], int], Message],
    context: Context,
    activity: Activity,
    *,
    fits: Callable[[T], bool] = lambda _: True,
    most: int | None = None,
    follow: bool,
) -> None:
    """Write the kept items to a call, and with `follow` also new ones, until the client leaves.

    `message` translates some items with their numbers, and the number of those that were dropped before them. `fits`
    selects items; of the kept ones, the last `most` are written. Raises ServerEndingError if the server ends.
    """
    number, first = tail.before, True
    while True:
        found, dropped = tail.after(number)
        number = found[-1][0] if found else number + dropped
        fitting = [each for each in found if fits(each[1])]
        if first and most is not None:
            fitting = fitting[max(len(fitting) - most, 0) :]
        # The first message tells the client that the stream has begun, also if nothing is kept.
        for begin in range(0, max(len(fitting), first or dropped > 0), TOGETHER):
            await context.write(message(fitting[begin : begin + TOGETHER], 0 if begin else dropped))
        first = False
        if not follow:
            return
        await activity.pause(PAUSE)
        if activity.ending:
            raise ServerEndingError


def level(number: int) -> "diagnostics_pb2.LogLevel.ValueType":
    """Return the severity of a level of `logging`."""
    return next(found for least, found in _LEVELS if number >= least)


def logs(lines: Sequence[tuple[int, LogLine]], dropped: int) -> diagnostics_pb2.StreamLogsResponse:
    """Return a message with log lines."""
    return diagnostics_pb2.StreamLogsResponse(
        lines=[
            diagnostics_pb2.LogLine(
                time=timestamp(each.time_ns),
                level=level(each.level),
                logger=each.logger,
                request_id=each.request_id,
                message=each.message,
                facts_json=each.facts_json,
                traceback=each.traceback,
            )
            for _, each in lines
        ],
        dropped_count=dropped,
    )


def server_events(
    found: Sequence[tuple[int, tuple[int, ServerEvent]]], dropped: int
) -> diagnostics_pb2.StreamServerEventsResponse:
    """Return a message with events of the server."""
    return diagnostics_pb2.StreamServerEventsResponse(
        events=[_server_event(number, time_ns, event) for number, (time_ns, event) in found], dropped_count=dropped
    )


def _server_event(number: int, time_ns: int, event: ServerEvent) -> diagnostics_pb2.ServerEvent:
    wire = diagnostics_pb2.ServerEvent
    found = wire(number=number, time=timestamp(time_ns))
    match event:
        case events.ModelLoaded():
            loaded = wire.ModelLoaded(model=event.model, backend=event.backend, load=duration(event.seconds))
            found.model_loaded.CopyFrom(loaded)
        case events.ModelLoadFailed():
            failed = wire.ModelLoadFailed(
                model=event.model,
                backend=event.backend,
                error_reason=event.reason,
                error_message=replace_lone_surrogates(event.error),
            )
            found.model_load_failed.CopyFrom(failed)
        case events.ModelRemoved():
            cause = _CAUSES.get(event.cause, diagnostics_pb2.MODEL_REMOVAL_CAUSE_UNSPECIFIED)
            removed = wire.ModelRemoved(model=event.model, cause=cause, evicted_for_model=event.evicted_for)
            found.model_removed.CopyFrom(removed)
        case events.HostDied():
            found.host_died.CopyFrom(wire.HostDied(model=event.model, status=event.status))
        case events.NodeLost():
            lost = wire.NodeLost(node=event.node, hosts=event.hosts, error_message=replace_lone_surrogates(event.error))
            found.node_lost.CopyFrom(lost)
    return found
