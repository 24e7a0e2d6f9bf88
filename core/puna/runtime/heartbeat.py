"""The watch over a host: the core asks it for a sign of life, and how far its model's work is.

A host whose event loop does not answer hangs, be it stopped, deadlocked or in a native call that never returns. A host
whose loop answers may have a thread that hangs; its model then has work and makes no step.

Time is counted in ticks that the core itself has lived through. A machine that sleeps, or a container that is frozen,
stops core and hosts alike, and costs one tick whatever the clock says. A core that is short of processor time counts
slowly, as its hosts work slowly.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from puna.backend.v1 import backend_pb2 as wire

INTERVAL: Final = 5.0
"""The longest pause between two beats, in seconds."""
TICKS: Final = 12
"""The parts that a deadline is counted in."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a host may hang, in seconds; infinity: for ever."""

    silence: float = math.inf
    """How long a beat may stay without an answer."""
    step: float = math.inf
    """How long work may go on without a step."""


PATIENCE: Final = Patience()
"""No limit."""


class UnjudgedError(Exception):
    """The host knows no beats, or is gone."""


class Heartbeat:
    """Watches one host. `beat` asks it for a sign of life."""

    def __init__(self, beat: Callable[[], Awaitable[wire.BeatResponse]], patience: Patience) -> None:
        self._beat = beat
        self._patience = patience
        self._tick = min(INTERVAL, patience.silence / TICKS, patience.step / TICKS)
        self._last: int | None = None
        self._unmoved = 0.0

    async def hang(self) -> str:
        """Wait until the host hangs, and return what is wrong with it. UnjudgedError: nothing can be said of it."""
        while True:
            await asyncio.sleep(self._tick)
            self._unmoved += self._tick
            answer = asyncio.ensure_future(self._beat())
            try:
                if not await self._answered(answer):
                    return f"it has not answered for {self._patience.silence:g} seconds"
                step = _step(answer)
            finally:
                answer.cancel()
            if step is None or step != self._last:
                self._last, self._unmoved = step, 0.0
            elif self._unmoved >= self._patience.step:
                return f"its work has made no step for {self._patience.step:g} seconds"

    async def _answered(self, answer: "asyncio.Future[wire.BeatResponse]") -> bool:
        silent = 0.0
        while silent < self._patience.silence:
            if (await asyncio.wait({answer}, timeout=self._tick))[0]:
                return True
            silent += self._tick
            self._unmoved += self._tick
        return False


def _step(answer: "asyncio.Future[wire.BeatResponse]") -> int | None:
    """Read an answer. An error of the host's own is a sign of life too."""
    try:
        response = answer.result()
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE):
            raise UnjudgedError from None
        return None
    except (asyncio.CancelledError, grpc.aio.UsageError):  # the channel was closed
        raise UnjudgedError from None
    return response.step if response.HasField("step") else None
