"""The fair queue: every request that waits gets an equal share of the time, however many texts it has.

The queue counts the tokens that each request has been served, and takes the next text from the request with the least.
Among equals the one with the shorter next text comes first. A new request starts with the count of the least served
one: it neither catches up on the past nor waits for the others' past. So the answer to a short text does not wait for a
list of thousands that came before it.

A heap orders the requests by these counts. Cancelled requests stay in the heap until they come up or become the
majority, since removing an entry from the middle of a heap costs a pass over it.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna_llama_cpp.step_thread import ResultQueue

_SPARE_ENTRIES = 64
"""Entries of cancelled requests that the heap may keep in any case."""


class Job:
    """The texts of one request. Belongs to the running event loop; compared by identity."""

    def __init__(self) -> None:
        self.results: ResultQueue[tuple[int, NDArray[np.float32]]] = ResultQueue()
        self.cancelled = False


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a request, as tokens."""

    job: Job
    index: int
    tokens: list[int]


class FairQueue:
    """Texts that wait, ordered by how much their requests have been served."""

    def __init__(self) -> None:
        self._waiting: dict[Job, deque[Text]] = {}
        self._heap: list[tuple[int, int, int, Job]] = []
        """Entries of (tokens served, length of the next text, a serial number that makes entries unequal, request)."""
        self._numbers = itertools.count()

    @property
    def jobs(self) -> list[Job]:
        """The requests with waiting texts."""
        return list(self._waiting)

    def add(self, job: Job, texts: Sequence[list[int]]) -> None:
        """Add a request with at least one text."""
        # A new request starts level with the least served one.
        served = self._heap[0][0] if self._next() else 0
        self._waiting[job] = deque(Text(job, index, tokens) for index, tokens in enumerate(texts))
        self._push(job, served)

    def drop(self, job: Job) -> None:
        """Remove the waiting texts of a request."""
        self._waiting.pop(job, None)
        if len(self._heap) > 2 * len(self._waiting) + _SPARE_ENTRIES:
            self._heap = [entry for entry in self._heap if entry[-1] in self._waiting]
            heapq.heapify(self._heap)

    def take(self, slots: int, room: int) -> list[Text]:
        """Remove and return the texts of the next batch: at most `slots`, and at most `room` tokens.

        A single text may exceed `room`.
        """
        taken: list[Text] = []
        total = 0
        while len(taken) < slots and (job := self._next()):
            served, length = self._heap[0][:2]
            total += length
            # The first text is always taken, so a text longer than `room` is a batch of its own.
            if taken and total > room:
                break
            # After the check of the room: a request whose text does not fit stays first, and opens the next batch.
            heapq.heappop(self._heap)
            texts = self._waiting[job]
            taken.append(texts.popleft())
            if texts:
                # Tokens are counted and not texts, since the time of a text grows with its tokens.
                self._push(job, served + length)
            else:
                del self._waiting[job]
        return taken

    def _push(self, job: Job, served: int) -> None:
        heapq.heappush(self._heap, (served, len(self._waiting[job][0].tokens), next(self._numbers), job))

    def _next(self) -> Job | None:
        """Return the request that is served next. Afterwards it is the first entry of the heap."""
        while self._heap:
            job = self._heap[0][-1]
            if job in self._waiting:
                return job
            heapq.heappop(self._heap)
        return None
