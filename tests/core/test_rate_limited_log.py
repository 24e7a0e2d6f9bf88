import logging
from types import SimpleNamespace

from puna import rate_limited_log
from puna.rate_limited_log import RateLimitedLogger


def test_warnings_are_few_and_count_the_rest(caplog, monkeypatch):
    now = 100.0
    monkeypatch.setattr(rate_limited_log, "time", SimpleNamespace(monotonic=lambda: now))
    rare = RateLimitedLogger(logging.getLogger("puna.test"), 60.0)
    for number in range(3):
        rare.warn("trouble %d", number)
    assert caplog.messages == ["trouble 0"]
    now += 60.0
    rare.warn("trouble %d", 3)
    now += 60.0
    rare.warn("trouble %d", 4)
    assert caplog.messages[1:] == ["trouble 3 (2 more since the last such line)", "trouble 4"]
