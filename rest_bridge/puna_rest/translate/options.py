"""The fields of request bodies beside their input: options, keep-alive, structured output."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from puna.go import json as gojson
from puna.go.json_scanner import Document, Node
from puna.limits import clamp_int32
from puna_client.v1 import options_pb2

Body: TypeAlias = Mapping[str, Any]
LEVELS: Final[Mapping[object, options_pb2.ThinkingLevel.ValueType]] = {
    None: options_pb2.THINKING_LEVEL_UNSPECIFIED,
    False: options_pb2.THINKING_LEVEL_OFF,
    True: options_pb2.THINKING_LEVEL_ON,
    "low": options_pb2.THINKING_LEVEL_LOW,
    "medium": options_pb2.THINKING_LEVEL_MEDIUM,
    "high": options_pb2.THINKING_LEVEL_HIGH,
    "max": options_pb2.THINKING_LEVEL_MAX,
}


def request_options(document: Document, body: Body, start: int) -> options_pb2.RequestOptions:
    """Return the RequestOptions of /api/generate and /api/chat. `start`: arrival in nanoseconds since 1970."""
    out = model_options(document, body, start)
    out.truncate = body["truncate"] is not False
    if body["shift"] is not None:
        out.shift = body["shift"]
    if (constraint := output_constraint(body["format"])) is not None:
        out.constraint.CopyFrom(constraint)
    out.thinking = LEVELS[body["think"]]
    out.logprobs = body["logprobs"]
    out.top_logprobs = clamp_int32(body["top_logprobs"])
    return out


def model_options(document: Document, body: Body, start: int) -> options_pb2.RequestOptions:
    """Return the RequestOptions that every route with a model has: options and keep-alive."""
    options = body["options"]
    return options_pb2.RequestOptions(
        options_json=raw_object(document, options) if options is not None else "",
        keep_alive=keep_alive(body["keep_alive"]),
        start_time=moment(start),
    )


def raw_object(document: Document, node: Node) -> str:
    """Return an object as raw JSON. A repeated key extends the object, so the text is put together anew."""
    return "{" + ",".join(f"{gojson.string(key)}:{document.raw(value)}" for key, value in node.value) + "}"


def output_constraint(raw: str) -> options_pb2.OutputConstraint | None:
    """Return the structured output that `format` demands. The core refuses an invalid one."""
    if raw in ("", "null", '""'):
        return None
    if raw == '"json"':
        return options_pb2.OutputConstraint(json_object=True)
    return options_pb2.OutputConstraint(json_schema=raw)


def keep_alive(nanoseconds: int | None) -> options_pb2.KeepAlive | None:
    """Return a keep-alive as a Duration. A negative number of nanoseconds means no end."""
    if nanoseconds is None:
        return None
    if nanoseconds < 0:
        return options_pb2.KeepAlive(forever=True)
    duration = Duration()
    duration.FromNanoseconds(nanoseconds)
    return options_pb2.KeepAlive(duration=duration)


def moment(nanoseconds: int) -> Timestamp:
    """Return nanoseconds since 1970 as a Timestamp."""
    return Timestamp(seconds=nanoseconds // 1_000_000_000, nanos=nanoseconds % 1_000_000_000)
