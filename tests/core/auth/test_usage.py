"""Limits and counts of keys."""

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from puna.auth.errors import QuotaExceededError, RateLimitedError
from puna.auth.keys import ApiKey
from puna.auth.usage import Counts, Ledger
from puna.formats import NewerFormatError

KEY = ApiKey(id="1", name="shop", digest="")


class Time:
    """A clock that the test turns, as seconds and as a date."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def now(self):
        return datetime(2026, 11, 28, 23, 0, tzinfo=UTC) + timedelta(seconds=self.seconds)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def ledger(time):
    return Ledger(None, time, time.now)


def key(**limits):
    return ApiKey(id="1", name="shop", digest="", **limits)


def send(ledger, limited):
    with ledger.running(limited):
        pass


def test_a_minutes_requests_at_once_then_at_the_limits_pace(ledger, time):
    limited = key(requests_per_minute=3)
    for _ in range(3):
        send(ledger, limited)
    with pytest.raises(RateLimitedError, match="3 requests a minute") as refused:
        send(ledger, limited)
    assert refused.value.retry_seconds == pytest.approx(20)
    time.seconds += refused.value.retry_seconds
    send(ledger, limited)
    with pytest.raises(RateLimitedError):
        send(ledger, limited)
    # A long pause gives one minute's requests, not more.
    time.seconds += 3600
    for _ in range(3):
        send(ledger, limited)
    with pytest.raises(RateLimitedError):
        send(ledger, limited)


def test_requests_at_once(ledger):
    limited = key(concurrent_requests=2)
    with ExitStack() as running:
        running.enter_context(ledger.running(limited))
        running.enter_context(ledger.running(limited))
        with pytest.raises(RateLimitedError, match="2 requests at once"):
            send(ledger, limited)
    send(ledger, limited)


def test_a_place_comes_back_when_a_request_fails(ledger):
    limited = key(concurrent_requests=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), ledger.running(limited):
            raise ZeroDivisionError


def test_the_tokens_of_a_day(ledger, time):
    limited = key(tokens_per_day=100)
    send(ledger, limited)
    ledger.spend(limited, 60, 40)
    with pytest.raises(QuotaExceededError, match="100 tokens") as refused:
        send(ledger, limited)
    assert refused.value.retry_seconds == 3600  # midnight in UTC
    time.seconds += refused.value.retry_seconds
    send(ledger, limited)


def test_keys_do_not_share_their_limits(ledger):
    send(ledger, ApiKey(id="1", name="a", digest="", requests_per_minute=1))
    send(ledger, ApiKey(id="2", name="b", digest="", requests_per_minute=1))


def test_what_is_counted(ledger):
    limited = key(requests_per_minute=1)
    send(ledger, limited)
    ledger.spend(limited, 5, 7)
    with pytest.raises(RateLimitedError):
        send(ledger, limited)
    assert ledger.counts("1") == Counts(1, 1, 5, 7, "2026-11-28", 12)


def test_counts_survive_a_restart(tmp_path, time):
    path = tmp_path / "usage.json"
    first = Ledger(path, time, time.now)
    first.spend(KEY, 5, 7)
    first.save()
    second = Ledger(path, time, time.now)
    with pytest.raises(QuotaExceededError):
        send(second, key(tokens_per_day=12))
    time.seconds += 3600
    assert second.counts("1").day_tokens == 0
    assert second.counts("1").prompt_tokens == 5


@pytest.mark.parametrize("content", ["", "[]", '{"1": 5}', '{"1": {"requests": 1}, "2": []}'])
def test_a_broken_file_begins_anew(tmp_path, content, caplog):
    path = tmp_path / "usage.json"
    path.write_text(content)
    Ledger(path)
    assert "begins anew" in caplog.text


def test_a_full_disk_stops_no_request(tmp_path, caplog):
    ledger = Ledger(tmp_path / "missing" / "usage.json")
    ledger.spend(KEY, 1, 1)
    ledger.save()
    assert "cannot be kept" in caplog.text


def test_a_request_of_a_batch_meets_the_quota_alone(tmp_path):
    key = ApiKey(id="k", name="k", digest="", requests_per_minute=1, concurrent_requests=1, tokens_per_day=5)
    ledger = Ledger()
    for _ in range(3):
        ledger.check_quota(key)
        ledger.count(key)
    ledger.spend(key, 3, 2)
    with pytest.raises(QuotaExceededError):
        ledger.check_quota(key)
    counts = ledger.counts("k")
    assert (counts.requests, counts.refused) == (3, 0)


@pytest.mark.parametrize("content", ["", '{"version": "1"}', '{"version": 1}'])
def test_a_broken_file_is_kept_aside(tmp_path, content):
    path = tmp_path / "usage.json"
    path.write_text(content)
    ledger = Ledger(path)
    ledger.spend(KEY, 1, 1)
    ledger.save()
    assert (tmp_path / "usage.json.damaged").read_text() == content
    assert Ledger(path).counts("1").prompt_tokens == 1


def test_a_file_without_a_version_is_read_and_gets_one(tmp_path, time):
    path = tmp_path / "usage.json"
    path.write_text(json.dumps({"1": {"requests": 3, "prompt_tokens": 5}}))
    ledger = Ledger(path, time, time.now)
    ledger.spend(KEY, 2, 0)
    ledger.save()
    found = json.loads(path.read_text())
    assert found["version"] == 1
    assert (found["keys"]["1"]["requests"], found["keys"]["1"]["prompt_tokens"]) == (3, 7)


def test_what_only_a_newer_version_knows_stays_in_the_file(tmp_path):
    path = tmp_path / "usage.json"
    path.write_text(json.dumps({"version": 1, "keys": {"1": {"requests": 3, "images": 2}}, "since": "May"}))
    ledger = Ledger(path)
    ledger.spend(KEY, 1, 1)
    ledger.save()
    found = json.loads(path.read_text())
    assert (found["since"], found["keys"]["1"]["images"], found["keys"]["1"]["prompt_tokens"]) == ("May", 2, 1)


def test_a_file_of_a_newer_version_is_refused_and_stays_as_it_is(tmp_path, caplog):
    path = tmp_path / "usage.json"
    running = Ledger(path)
    running.spend(KEY, 1, 1)
    path.write_text('{"version": 2}')
    with pytest.raises(NewerFormatError, match=r"usage.json has format version 2"):
        Ledger(path)
    running.save()
    assert "format version 2" in caplog.text
    assert path.read_text() == '{"version": 2}'
    assert list(tmp_path.iterdir()) == [path]
