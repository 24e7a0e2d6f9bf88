"""Durations as Go writes them: "5m", "1h30m", "-1.5s"."""

import re
from typing import Final

UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    # Go accepts both characters that look like a micro sign: U+00B5 and the Greek letter U+03BC.
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
LARGEST: Final = 2**63 - 1
_PART = re.compile(r"(\d*)(?:\.(\d*))?([^\d.]*)")


def parse_duration(text: str) -> int:
    """Return a duration in nanoseconds. ValueError has the text of Go's time.ParseDuration."""
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    invalid = ValueError(f"time: invalid duration {quoted}")
    rest = text
    negative = rest.startswith("-")
    if rest[:1] in ("-", "+"):
        rest = rest[1:]
    # Zero is the only number that needs no unit.
    if rest == "0":
        return 0
    if not rest:
        raise invalid
    total = 0
    while rest:
        match = _PART.match(rest)
        if match is None or not (match[1] or match[2]):
            raise invalid
        if not match[3]:
            raise ValueError(f"time: missing unit in duration {quoted}")
        if match[3] not in UNITS:
            raise ValueError(f'time: unknown unit "{match[3]}" in duration {quoted}')
        unit = UNITS[match[3]]
        fraction = match[2] or ""
        total += int(match[1] or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        # int64 reaches one nanosecond further below zero than above.
        if total > LARGEST + negative:
            raise invalid
        rest = rest[match.end() :]
    return -total if negative else total


def parse_seconds(text: str) -> float:
    """Return the seconds of a setting: a duration, or a whole number of seconds, as in Ollama. Raises ValueError."""
    try:
        return parse_duration(text) / 1e9
    except ValueError:
        try:
            return float(int(text))
        except OverflowError:
            raise ValueError("the number of seconds is too large") from None
