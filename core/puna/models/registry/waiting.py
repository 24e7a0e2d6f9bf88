"""Waiting for a thread or a task to be through, also when the one who waits is cancelled."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from puna.blocking import stoppable

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function in a thread. Unlike with asyncio.to_thread it is over when this is, however this ends.

    So files that it uses may be closed, and what it decided may be relied upon.
    """
    return await stoppable(lambda _: function(*args, **kwargs))


def first_failure(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what made a group of tasks fail."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
