"""Times and durations as Go writes them in JSON: RFC 3339 without trailing zeros of the fraction, and nanoseconds."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def now() -> str:
    """Return the current time in UTC."""
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    # Without a call of `_fraction`, since each line of each stream has a time.
    return (f"{_second(seconds, 0)}.{nanos:09d}".rstrip("0") if nanos else _second(seconds, 0)) + "Z"


def local(moment: Timestamp, offset: int) -> str:
    """Return a timestamp in the zone that is `offset` seconds ahead of UTC."""
    if not offset:
        zone = "Z"
    else:
        minutes = abs(offset) // 60
        zone = f"{'-' if offset < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"
    return _second(moment.seconds, offset) + _fraction(moment.nanos) + zone


def nanoseconds(duration: Duration) -> int:
    """Return a duration in nanoseconds."""
    return duration.seconds * 1_000_000_000 + duration.nanos


@lru_cache(maxsize=8)
def _second(seconds: int, offset: int) -> str:
    # Not datetime.fromtimestamp: an endless keep-alive ends after the year 2300, which some platforms refuse.
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds + offset)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else moment.isoformat()[:19]


def _fraction(nanos: int) -> str:
    return f".{nanos:09d}".rstrip("0") if nanos else ""
