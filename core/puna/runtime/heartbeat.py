"""The heartbeat of a host process, which shows whether the host hangs.

Theory. The core calls the host's RPC `Heartbeat` at intervals. A host whose event loop does not answer hangs: it is
stopped, deadlocked, or in a native call that never returns. A host whose loop answers may still have a thread that
hangs; therefore each answer carries a step number, which changes with every step of the model's work. Work whose step
number stays the same for too long is a hang too. A host without work has no step number and cannot hang in this way.

A host that does not implement heartbeats, answers them with an error, or says that it has no work, is alive but says
nothing of what the core waits for. Then each message that it sends counts as a step, and it has work while the core
waits for one.

Time is counted in ticks that this process has lived through, not by a clock. A machine that sleeps, or a container that
is frozen, stops the core and its hosts alike and costs one tick, whatever the clock says. A core that is short of CPU
counts slowly, just as its hosts work slowly.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio

from puna.backend.v1 import backend_pb2 as wire

MAX_INTERVAL: Final = 5.0
"""The longest pause between two heartbeats, in seconds."""
TICKS: Final = 12
"""Number of ticks into which a timeout is divided."""


@dataclass(frozen=True, slots=True)
class HangTimeouts:
    """When a host counts as hung, in seconds; infinity means never."""

    silence: float = math.inf
    """How long a heartbeat may stay unanswered."""
    step: float = math.inf
    """How long the model may work without a step."""


NO_TIMEOUTS: Final = HangTimeouts()


class HeartbeatUnavailableError(Exception):
    """The host is gone."""


class Heartbeat:
    """Watches one host."""

    def __init__(
        self,
        call: Callable[[], Awaitable[wire.HeartbeatResponse]],
        timeouts: HangTimeouts,
        messages: Callable[[], int | None],
        on_answer: Callable[[wire.HeartbeatResponse], None] = lambda _: None,
    ) -> None:
        """`call` performs one heartbeat RPC. `messages` returns how many messages the host has sent; None: none is due.

        The latter replaces the step number of an answer that has none. `on_answer` gets each answer.
        """
        self._call = call
        self._messages = messages
        self._on_answer = on_answer
        self._timeouts = timeouts
        # A timeout is noticed at most one tick late, that is, a twelfth of it.
        self._tick = min(MAX_INTERVAL, timeouts.silence / TICKS, timeouts.step / TICKS)
        self._last_step: int | None = None
        self._seconds_without_step = 0.0

    async def wait_for_hang(self) -> str:
        """Wait until the host hangs, and return the reason as a clause.

        Raises HeartbeatUnavailableError if the host cannot be watched.
        """
        while True:
            await asyncio.sleep(self._tick)
            self._seconds_without_step += self._tick
            # One RPC is pending at a time. A host that is stopped gets no pile of heartbeats to answer afterwards.
            answer = asyncio.ensure_future(self._call())
            try:
                if not await self._answered(answer):
                    return f"it has not answered for {self._timeouts.silence:g} seconds"
                step = self._step(answer)
            finally:
                answer.cancel()
            # Only a change counts, not the order: the number of a new stretch of work may be smaller than the last.
            if step is None or step != self._last_step:
                self._last_step, self._seconds_without_step = step, 0.0
            elif self._seconds_without_step >= self._timeouts.step:
                return f"its work has made no step for {self._timeouts.step:g} seconds"

    async def _answered(self, answer: "asyncio.Future[wire.HeartbeatResponse]") -> bool:
        """Wait for an answer, tick by tick; return whether it came within the timeout."""

        def tick() -> None:
            self._seconds_without_step += self._tick

        return await answered(answer, self._timeouts.silence, self._tick, tick)

    def _step(self, answer: "asyncio.Future[wire.HeartbeatResponse]") -> int | None:
        """Return the step number of an answer; None if the host has no work."""
        try:
            response = answer.result()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise HeartbeatUnavailableError from None
            return self._messages()
        except (asyncio.CancelledError, grpc.aio.UsageError):  # the channel was closed
            raise HeartbeatUnavailableError from None
        self._on_answer(response)
        # A host that has forgotten its work, and says that it has none, is found by the messages that do not come.
        return response.step if response.HasField("step") else self._messages()


async def answered(
    answer: "asyncio.Future[Any]", within: float, tick: float = MAX_INTERVAL, on_tick: Callable[[], None] = lambda: None
) -> bool:
    """Wait for an answer; return whether it came within so many seconds, counted in ticks.

    `on_tick` is called after each tick. An answer that comes too late goes on.
    """
    silent, tick = 0.0, min(tick, within / TICKS)
    while silent < within:
        # `wait` does not cancel the RPC at its timeout, so a late answer still counts.
        if (await asyncio.wait({answer}, timeout=tick))[0]:
            return True
        # The tick is added whatever the clock says: a wait that took an hour because the machine slept counts as one
        # tick.
        silent += tick
        on_tick()
    return False
