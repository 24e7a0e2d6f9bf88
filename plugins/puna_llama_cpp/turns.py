"""Whose texts are embedded next: every request that waits gets an equal part of the time, whatever others have sent."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from puna_llama_cpp.steps import Mailbox


class Job:
    """The texts of one request; belongs to the running event loop. Compared by identity."""

    def __init__(self) -> None:
        """Start without results."""
        self.mailbox: Mailbox[tuple[int, NDArray[np.float32]]] = Mailbox()
        self.cancelled = False


@dataclass(frozen=True, slots=True)
class Text:
    """One of them, as tokens."""

    job: Job
    index: int
    tokens: list[int]


class Turns:
    """Texts that wait. Who has had least is next; who comes new counts as having had as much as whoever had least."""

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: dict[Job, deque[Text]] = {}
        self._had: dict[Job, int] = {}
        """Tokens that were taken of a request."""

    @property
    def jobs(self) -> list[Job]:
        """Requests with texts that wait."""
        return list(self._waiting)

    def add(self, job: Job, texts: Sequence[list[int]]) -> None:
        """Add a request, which has one text at least."""
        self._had[job] = min(self._had.values(), default=0)
        self._waiting[job] = deque(Text(job, index, tokens) for index, tokens in enumerate(texts))

    def drop(self, job: Job) -> None:
        """Forget what is left of a request."""
        self._waiting.pop(job, None)
        self._had.pop(job, None)

    def take(self, slots: int, room: int) -> list[Text]:
        """Take the next texts for a batch of at most `room` tokens, of which a longer one is all of it."""
        taken: list[Text] = []
        total = 0
        while self._waiting and len(taken) < slots:
            job = min(self._waiting, key=lambda job: (self._had[job], len(self._waiting[job][0].tokens)))
            texts = self._waiting[job]
            total += len(texts[0].tokens)
            if taken and total > room:
                break
            taken.append(texts.popleft())
            self._had[job] += len(taken[-1].tokens)
            if not texts:
                self.drop(job)
        return taken
