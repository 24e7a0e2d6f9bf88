"""Runs code of a plugin so that every exception it raises becomes a value.

Theory. A plugin may raise anything, and some exceptions mean something else to asyncio. KeyboardInterrupt and
SystemExit leave the task and end the event loop, and with it the host. CancelledError looks as if the core had
cancelled the call. A task that cancels itself ends as cancelled, whatever it returns. So each call runs in a task of
its own, the exception is caught inside that task, and only the waiter's own cancellation counts as one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from puna.backend import Embedding

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Raised:
    """The exception that a call raised."""

    error: BaseException


async def attempt(call: Callable[[], Awaitable[T]]) -> T | Raised:
    """Return what the plugin's coroutine returns, or what it raises.

    Cancelling this coroutine cancels the plugin's and waits for its end.
    """

    async def run() -> T | Raised:
        try:
            return await call()
        except BaseException as error:  # a plugin may raise anything
            return Raised(error)

    task = asyncio.create_task(run())
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        # The model must not be freed while one of its methods runs.
        await asyncio.wait({task})
        raise
    return Raised(asyncio.CancelledError()) if task.cancelled() else task.result()


def check_embeddings(found: object) -> Sequence[Embedding]:
    """Return what a plugin's `embed` returned. Raises TypeError if that is no list of vectors."""
    if not isinstance(found, list | tuple) or not all(isinstance(each, Embedding) for each in found):
        raise TypeError("embed must return a list of Embedding")
    return found


class Work:
    """The calls and sequences that run in a host, and when each last made a step.

    The heartbeat uses it for models that have no step number. Steps of all work are numbered together.
    """

    def __init__(self) -> None:
        self._last_number = 0
        self._last_steps: dict[int, int] = {}
        self._models: dict[int, str] = {}
        """The ids of the models that do the work."""

    def begin(self, model_id: str = "") -> int:
        """Count a piece of a model's work; return the key under which it makes its steps."""
        key = self._last_number = self._last_number + 1
        self._last_steps[key], self._models[key] = key, model_id
        return key

    def step(self, key: int) -> None:
        """Count a step."""
        self._last_number += 1
        self._last_steps[key] = self._last_number

    def end(self, key: int) -> None:
        """Count the end of a piece of work."""
        del self._last_steps[key], self._models[key]

    def oldest_step(self, model_id: str | None = None) -> int | None:
        """Return the number of the last step of the work that has waited longest for its next one; None without work.

        It is the work of one model, or with None of all. A piece that hangs keeps this number the same, however many
        steps the others make.
        """
        of_model = (step for key, step in self._last_steps.items() if model_id in (None, self._models[key]))
        return min(of_model, default=None)
