"""One log line for each request that has ended: what it asked for, how it ended, its tokens and its durations.

The line never has a prompt, an answer or the text of an error. It is a listener of `puna.events`.
"""

import logging
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
    outcome = ended.outcome or "done"
    end = f"{outcome} while {ended.phase}" if ended.failed and outcome == "CANCELLED" else outcome
    facts = {
        "method": ended.method,
        "model": model,
        "key": ended.key,
        "outcome": outcome,
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
        ", ".join((end, *parts, f"{ended.seconds:.3f} s" + (f" ({spans})" if spans else ""))),
        extra={"facts": facts},
    )
