"""Usage per key: counts for the operator, and the limits that a key has.

The rate limit is a token bucket. It holds as many requests as the limit allows in a minute and refills evenly, so a
client may send a burst of a minute's requests and then requests at the limit's pace. The quota of tokens is checked
when a request begins and charged when it ends, so the last request of a day may exceed it.
"""

import json
import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from puna import atomic_files
from puna.auth.errors import QuotaExceededError, RateLimitedError
from puna.auth.keys import ApiKey
from puna.formats import USAGE, NewerFormatError

log = logging.getLogger(__name__)

_MINUTE = 60.0
_DAY = 86400.0
_KEYS: Final = "keys"
"""The field with the counts of each key."""


@dataclass(slots=True)
class Counts:
    """The use that one key has made of the server."""

    requests: int = 0
    """Requests that ran models."""
    refused: int = 0
    """Requests that a limit of the key refused."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    day: str = ""
    """The day of `day_tokens` in UTC."""
    day_tokens: int = 0
    """Prompt and output tokens of that day."""


@dataclass(slots=True)
class _Bucket:
    left: float
    since: float
    running: int = 0


class Ledger:
    """The usage of all keys. It is kept in a file, so that quotas survive a restart. Not safe between threads."""

    def __init__(
        self,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`path` is the file; None keeps the counts in memory. `clock` counts seconds, `now` tells the time in UTC.

        NewerFormatError: a newer version of Puna wrote the file.
        """
        self._path = path
        self._clock = clock
        self._now = now
        self._counts: dict[str, Counts] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._changed = False
        self._content: dict[str, Any] = {}
        """The whole file. A newer version may have written more than counts."""
        self._load()

    def counts(self, id_: str) -> Counts:
        """Return the counts of a key, those of the current day included."""
        found = self._counts.setdefault(id_, Counts())
        today = self._now().strftime("%Y-%m-%d")
        if found.day != today:
            found.day, found.day_tokens = today, 0
        return found

    @contextmanager
    def running(self, key: ApiKey) -> Generator[None]:
        """Count a request that runs a model while the block lasts. Raises RateLimitedError, QuotaExceededError."""
        counts = self.counts(key.id)
        bucket = self._bucket(key)
        self._changed = True
        try:
            self._check(key, counts, bucket)
        except (RateLimitedError, QuotaExceededError):
            counts.refused += 1
            raise
        counts.requests += 1
        bucket.left -= 1
        bucket.running += 1
        try:
            yield
        finally:
            bucket.running -= 1

    def check_quota(self, key: ApiKey) -> None:
        """Raise QuotaExceededError if a key has used its tokens of the day."""
        self._check_quota(key, self.counts(key.id))

    def count(self, key: ApiKey) -> None:
        """Count a request of a batch, to which the limits by time do not apply."""
        self.counts(key.id).requests += 1
        self._changed = True

    def spend(self, key: ApiKey, prompt_tokens: int, output_tokens: int) -> None:
        """Charge tokens to a key."""
        counts = self.counts(key.id)
        counts.prompt_tokens += prompt_tokens
        counts.output_tokens += output_tokens
        counts.day_tokens += prompt_tokens + output_tokens
        self._changed = True

    def save(self) -> None:
        """Write the counts to the file if they have changed. An error is logged. Blocks."""
        if self._path is None or not self._changed:
            return
        self._changed = False
        keys = dict(self._content.get(_KEYS, {}))
        keys |= {id_: {**keys.get(id_, {}), **asdict(each)} for id_, each in self._counts.items()}
        content = USAGE.versioned({**self._content, _KEYS: keys})
        try:
            with suppress(FileNotFoundError, ValueError):
                # A newer version may have begun to use the file.
                _read(self._path)
            atomic_files.write(self._path, json.dumps(content, indent=1).encode() + b"\n")
        except OSError as error:
            log.error("the usage of keys cannot be kept in %s: %s", self._path, error.strerror)

    def _bucket(self, key: ApiKey) -> _Bucket:
        now = self._clock()
        most = float(key.requests_per_minute)
        bucket = self._buckets.setdefault(key.id, _Bucket(most, now))
        bucket.left = min(most, bucket.left + (now - bucket.since) * most / _MINUTE)
        bucket.since = now
        return bucket

    def _check_quota(self, key: ApiKey, counts: Counts) -> None:
        if key.tokens_per_day and counts.day_tokens >= key.tokens_per_day:
            now = self._now()
            over = _DAY - (now - now.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
            raise QuotaExceededError(key.tokens_per_day, over)

    def _check(self, key: ApiKey, counts: Counts, bucket: _Bucket) -> None:
        self._check_quota(key, counts)
        if key.concurrent_requests and bucket.running >= key.concurrent_requests:
            raise RateLimitedError(f"this key may run {key.concurrent_requests} requests at once", 1.0)
        if key.requests_per_minute and bucket.left < 1:
            wait = (1 - bucket.left) * _MINUTE / key.requests_per_minute
            raise RateLimitedError(f"this key may send {key.requests_per_minute} requests a minute", wait)

    def _load(self) -> None:
        if self._path is None or not self._path.exists():
            return
        names = {each.name for each in fields(Counts)}
        try:
            content = _read(self._path)
            for id_, each in content[_KEYS].items():
                self._counts[id_] = Counts(**{name: value for name, value in each.items() if name in names})
            self._content = content
        except NewerFormatError:
            raise
        except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:
            log.error("the usage of keys in %s cannot be read and begins anew: %s", self._path, error)
            with suppress(OSError):
                self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a file of usage. Raises OSError, NewerFormatError among them, and ValueError."""
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    # Before version 1, the file had the counts alone.
    return content if USAGE.check(path, content) else {_KEYS: content}
