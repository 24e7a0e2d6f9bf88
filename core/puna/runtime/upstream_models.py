"""The models that backends offer without a creation, such as those of an upstream server.

Theory. Asking a backend takes a process and an answer over the network, and lists are asked for every few seconds by
programs that show them. So each backend is asked in the background, and a list shows its last answer. Only a backend
that has never answered is waited for, and not longer than PUNA_MAX_LISTING_SECONDS after the question. An answer is
used for FRESH_SECONDS; the request that finds it older starts the next question and does not wait for it. A backend
that fails keeps its last answer, is logged once for each reason, and is asked again after the same time. So an upstream
that is down delays no other request.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from puna.backend import BackendError, UpstreamModel
from puna.errors import PunaError
from puna.request_log import without_request

log = logging.getLogger(__name__)

FRESH_SECONDS: Final = 30.0
"""How long an answer is used before the backend is asked again."""
UNKNOWN_FRESH_SECONDS: Final = 3.0
"""The same for a request that names a model which the answer does not have."""

Ask = Callable[[str], Awaitable[Sequence[UpstreamModel]]]
"""Asks a backend for its models. Raises PunaError, BackendError, and OSError if there is no place for a socket."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a backend offers."""

    backend: str
    model: UpstreamModel

    @property
    def name(self) -> str:
        """The name in Puna, with the backend in front: "openai/gpu1/qwen3:latest".

        A name without a tag gets the one that Ollama's clients add to such names.
        """
        last = self.model.name.rpartition("/")[2]
        return f"{self.backend}/{self.model.name}" + ("" if ":" in last else ":latest")


@dataclass(slots=True)
class _Answer:
    """The last answer of a backend."""

    offers: tuple[Offer, ...] = ()
    time: float = 0.0
    """When the last question began while it is under way, and otherwise when it ended, by the monotonic clock."""
    task: "asyncio.Task[None] | None" = None
    """The question that is under way."""
    known: bool = False
    """Whether a question has ended so far."""
    reason: str = ""
    """Why the last question failed; empty if it did not."""


class UpstreamModels:
    """The last answer of each backend that lists models."""

    def __init__(
        self,
        backends: Callable[[], Iterable[str]],
        ask: Ask,
        *,
        wait_seconds: float,
        most: int,
        find_backends: Callable[[], object] = bool,
    ) -> None:
        """`backends` names those that list models. `most`: models of one backend that are kept.

        `find_backends` is called before each list, in a thread, so that a backend which was installed meanwhile is
        among them.
        """
        self._backends = backends
        self._find_backends = find_backends
        self._ask = ask
        self._wait_seconds = wait_seconds
        self._most = most
        self._answers: dict[str, _Answer] = {}

    def prefetch(self) -> None:
        """Ask all backends, so that the first list need not wait for them."""
        for name in self._backends():
            self._answer(name, FRESH_SECONDS)

    def owns(self, name: str) -> bool:
        """Return whether a name begins with a backend that lists models."""
        return name.partition("/")[0] in self._backends()

    async def all(self) -> list[Offer]:
        """Return the models of all backends, in the order of the backends' names."""
        await asyncio.to_thread(self._find_backends)
        names = sorted(self._backends())
        answers = [self._answer(name, FRESH_SECONDS) for name in names]
        # A backend that was removed lists nothing any more.
        self._answers = {name: answer for name, answer in self._answers.items() if name in names}
        await self._wait(answer for answer in answers if not answer.known)
        return [offer for answer in answers for offer in answer.offers]

    async def find(self, name: str) -> Offer | None:
        """Return the model of a name, with or without the tag "latest"; None if no backend offers it."""
        backend, slash, _ = name.partition("/")
        if not slash or not self.owns(name):
            return None
        answer = self._answer(backend, FRESH_SECONDS)
        if (found := _matching(answer.offers, name)) is None:
            # The upstream may have got the model since the last question.
            answer = self._answer(backend, UNKNOWN_FRESH_SECONDS)
            await self._wait([answer])
            found = _matching(answer.offers, name)
        return found

    async def aclose(self) -> None:
        """End all questions."""
        tasks = [answer.task for answer in self._answers.values() if answer.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _answer(self, backend: str, fresh_seconds: float) -> _Answer:
        """Return the last answer of a backend, and ask it anew if the answer is older than `fresh_seconds`."""
        answer = self._answers.setdefault(backend, _Answer())
        is_old = not answer.known or time.monotonic() - answer.time > fresh_seconds
        if is_old and answer.task is None:
            # The question outlives the request that starts it.
            answer.task = asyncio.create_task(self._refresh(backend, answer), context=without_request())
            answer.time = time.monotonic()
        return answer

    async def _wait(self, answers: Iterable[_Answer]) -> None:
        """Wait for questions that are under way, counted from their beginning, so that not each request waits anew."""
        now = time.monotonic()
        left = {answer.task: answer.time + self._wait_seconds - now for answer in answers if answer.task is not None}
        if left and (seconds := max(left.values())) > 0:
            await asyncio.wait(left, timeout=seconds if seconds < math.inf else None)

    async def _refresh(self, backend: str, answer: _Answer) -> None:
        reason = ""
        try:
            found = await self._ask(backend)
            answer.offers = tuple(Offer(backend, each) for each in found[: self._most])
        except (PunaError, BackendError, OSError) as error:
            reason = str(error)
        finally:
            answer.task, answer.known, answer.time = None, True, time.monotonic()
        if reason and reason != answer.reason:
            log.warning("backend %r does not list its models: %s", backend, reason)
        answer.reason = reason


def _matching(offers: Sequence[Offer], name: str) -> Offer | None:
    # Names of upstreams may differ in case alone, so an exact match wins.
    folded = None
    for offer in offers:
        for spelled in (offer.name, offer.name.removesuffix(":latest")):
            if spelled == name:
                return offer
            if folded is None and spelled.lower() == name.lower():
                folded = offer
    return folded
