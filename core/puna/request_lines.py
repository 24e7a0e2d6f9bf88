"""One log line for each request that has ended: what it asked for, how it ended, its tokens and its durations.

The line never has a prompt, an answer or the text of an error. It is a listener of `puna.events`. If the request has a
trace, the line has its id, and as JSON also that of the span: the core's own if it exports traces, else the client's.
"""

import logging
import re
from collections.abc import Callable
from typing import Final

from puna import events
from puna.request_log import LONGEST_NAME

log = logging.getLogger("puna.requests")

_COUNTS: Final = (
    ("prompt_tokens", "prompt tokens"),
    ("cached_tokens", "cached"),
    ("output_tokens", "output tokens"),
    ("vectors", "vectors"),
    ("truncated_tokens", "tokens cut off"),
)
_DURATIONS: Final = ("queue", "load", "prefill", "decode")
_TRACEPARENT: Final = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-")


def start() -> Callable[[], None]:
    """Log a line for each request from now on. Return the function that ends this."""
    return events.subscribe(events.RequestEnded, write)


def write(ended: events.RequestEnded) -> None:
    """Log the line of a request."""
    model = ended.model[:LONGEST_NAME]
    counts = {name: value for name, _ in _COUNTS if (value := getattr(ended, name))}
    durations = {each: value for each in _DURATIONS if (value := getattr(ended, f"{each}_seconds"))}
    parts = [f"{value} {text}" for name, text in _COUNTS if (value := counts.get(name))]
    spans = ", ".join(f"{name} {value:.3f}" for name, value in durations.items())
    key = f" for key {ended.key!r}" if ended.key else ""
    found = _TRACEPARENT.match(ended.traceparent)
    trace_id, span_id = found.groups() if found else ("", "")
    trace = f", trace {trace_id}" if trace_id else ""
    outcome = ended.outcome or "done"
    end = f"{outcome} while {ended.phase}" if ended.failed and outcome == "CANCELLED" else outcome
    facts = {
        "method": ended.method,
        "model": model,
        "key": ended.key,
        "outcome": outcome,
        "trace_id": trace_id,
        "span_id": span_id,
        "phase": ended.phase,
        **counts,
        "seconds": round(ended.seconds, 6),
        **{f"{name}_seconds": round(value, 6) for name, value in durations.items()},
    }
    log.info(
        "%s %r%s: %s",
        ended.method,
        model,
        key,
        ", ".join((end, *parts, f"{ended.seconds:.3f} s" + (f" ({spans})" if spans else ""))) + trace,
        extra={"facts": facts},
    )
