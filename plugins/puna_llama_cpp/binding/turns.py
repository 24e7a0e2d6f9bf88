"""Turns in which the models of a process compute.

Models that share their weights run in one process, each with a context of its own. llama.cpp applies adapters to a
context and evaluates a batch for one context, so the models take turns, one batch each, in the order in which they ask.
Two batches at once would compete for the same cores, whose threads spin while they wait for each other. The order of
sums that Puna's kernels use (`puna_ggml_kernels.loader.set_order`) belongs to the process as well.

A model that is alone never waits. `threading.Lock` would not do for several: a thread that releases it and asks again
at once may get it before those that wait.
"""

import threading
import time
from collections import deque
from types import TracebackType
from typing import Final


class Turns:
    """A lock that threads get in the order in which they ask for it. Entering returns the seconds that were waited."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()
        self.passed = 0
        """Number of turns that have ended."""

    def __enter__(self) -> float:
        with self._lock:
            if not self._taken:
                self._taken = True
                return 0.0
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        began = time.perf_counter()
        gate.acquire()
        return time.perf_counter() - began

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self.passed += 1
            # The turn goes on to the next thread without becoming free in between.
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


TURNS: Final = Turns()
"""The turns of this process."""
LOADING: Final = threading.RLock()
"""Held while a model of this process is loaded or freed. llama.cpp's log, ggml's tables and a model's list of adapters
are used by one thread at a time."""
