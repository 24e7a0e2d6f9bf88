import re

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from puna_rest.times import local, now


@pytest.mark.parametrize(
    ("seconds", "nanos", "offset", "text"),
    [
        (0, 0, 0, "1970-01-01T00:00:00Z"),
        (1772352902, 123456789, 3600, "2026-03-01T09:15:02.123456789+01:00"),
        (1772374502, 500000000, -18000, "2026-03-01T09:15:02.5-05:00"),
        (1772374502, 1000, 19800, "2026-03-01T19:45:02.000001+05:30"),
        (11_000_000_000, 0, 0, "2318-07-30T19:33:20Z"),
    ],
)
def test_moments(seconds, nanos, offset, text):
    assert local(Timestamp(seconds=seconds, nanos=nanos), offset) == text


def test_now_is_utc_without_trailing_zeros():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", now())
