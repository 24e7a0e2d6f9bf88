"""Whose texts are embedded next: every request that waits gets an equal part of the time, whatever others have sent."""

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna_llama_cpp.step_thread import ResultQueue

_SPARE_ENTRIES = 64
"""Entries of dropped requests that a heap may keep."""


class Job:
    """The texts of one request; belongs to the running event loop. Compared by identity."""

    def __init__(self) -> None:
        """Start without results."""
        self.results: ResultQueue[tuple[int, NDArray[np.float32]]] = ResultQueue()
        self.cancelled = False


@dataclass(frozen=True, slots=True)
class Text:
    """One of them, as tokens."""

    job: Job
    index: int
    tokens: list[int]


class FairQueue:
    """Texts that wait. The request that has had least is next; a new one counts as having had as much as that.

    A heap orders the requests. Entries of requests that were dropped stay in it until they come up, or are the most.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: dict[Job, deque[Text]] = {}
        self._heap: list[tuple[int, int, int, Job]] = []
        """The tokens that a request has had, the length of its next text, a number that makes entries unequal."""
        self._numbers = itertools.count()

    @property
    def jobs(self) -> list[Job]:
        """Requests with texts that wait."""
        return list(self._waiting)

    def add(self, job: Job, texts: Sequence[list[int]]) -> None:
        """Add a request, which has one text at least."""
        served = self._heap[0][0] if self._next() else 0
        self._waiting[job] = deque(Text(job, index, tokens) for index, tokens in enumerate(texts))
        self._push(job, served)

    def drop(self, job: Job) -> None:
        """Forget what is left of a request."""
        self._waiting.pop(job, None)
        if len(self._heap) > 2 * len(self._waiting) + _SPARE_ENTRIES:
            self._heap = [entry for entry in self._heap if entry[-1] in self._waiting]
            heapq.heapify(self._heap)

    def take(self, slots: int, room: int) -> list[Text]:
        """Take the next texts for a batch of at most `room` tokens, of which a longer one is all of it."""
        taken: list[Text] = []
        total = 0
        while len(taken) < slots and (job := self._next()):
            served, length = self._heap[0][:2]
            total += length
            if taken and total > room:
                break
            heapq.heappop(self._heap)
            texts = self._waiting[job]
            taken.append(texts.popleft())
            if texts:
                self._push(job, served + length)
            else:
                del self._waiting[job]
        return taken

    def _push(self, job: Job, served: int) -> None:
        heapq.heappush(self._heap, (served, len(self._waiting[job][0].tokens), next(self._numbers), job))

    def _next(self) -> Job | None:
        """Return whose turn it is; the first entry of the heap is that request's."""
        while self._heap:
            job = self._heap[0][-1]
            if job in self._waiting:
                return job
            heapq.heappop(self._heap)
        return None
