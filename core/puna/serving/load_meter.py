"""How busy the server is, for balancers: averages of the recent past.

Theory. A balancer sends each server requests in proportion to what the server does per unit of load: the rate of its
requests divided by its utilization. Both must be averages over the same time, or a server that is just between two
requests looks idle. The averages here are exponential: what happened t seconds ago counts e^(-t/τ), with τ = SECONDS.
The number of requests under way is constant between two changes, so its average a follows exactly from
a' = n + (a - n) e^(-t/τ). A rate is a sum of events that decays, and each event adds 1/τ.
"""

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from puna.errors import (
    BackendCrashedError,
    BackendFailedError,
    BackendUnavailableError,
    DamagedModelError,
    LoadFailedError,
    PunaError,
    StoreFailedError,
)

SECONDS: Final = 10.0
"""The time τ of the averages."""
INFERENCE: Final = frozenset(
    {"Generate", "StreamGenerate", "Chat", "StreamChat", "Embed", "StreamVectors", "StreamEmbed", "Rerank", "Score"}
)
"""The methods whose requests count. Others take no slot."""
_FAULTS: Final = (
    BackendCrashedError,
    BackendFailedError,
    BackendUnavailableError,
    DamagedModelError,
    LoadFailedError,
    StoreFailedError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """How full the loaded models are now."""

    slots: int
    """Sequences that they run at once."""
    active: int
    """Requests that hold a slot."""
    queued: int
    """Requests that wait for a slot or a load."""
    tokens: int
    """Tokens of prompts and answers under way."""
    most_tokens: int
    """Tokens that fit into the KV caches. 0: unknown."""


class LoadMeter:
    """Averages over the requests under way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._time = clock()
        self._under_way = 0
        self._average = 0.0
        self._requests = 0.0
        self._failures = 0.0

    @contextmanager
    def counted(self, method: str) -> Generator[None]:
        """Count a request for as long as the block lasts, if its method runs a model."""
        if method not in INFERENCE:
            yield
            return
        self._advance()
        self._under_way += 1
        try:
            yield
        except Exception as error:
            # Errors of requests say nothing about the server.
            if isinstance(error, _FAULTS) or not isinstance(error, PunaError):
                self._failures += 1 / SECONDS
            raise
        finally:
            self._advance()
            self._under_way -= 1
            self._requests += 1 / SECONDS

    def _advance(self) -> None:
        now = self._clock()
        kept = math.exp((self._time - now) / SECONDS)
        self._time = now
        self._average = self._under_way + (self._average - self._under_way) * kept
        self._requests *= kept
        self._failures *= kept

    def read(self) -> tuple[float, float, float]:
        """Return requests under way, ended requests per second, and failed requests per second."""
        self._advance()
        return self._average, self._requests, self._failures
