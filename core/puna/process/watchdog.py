"""A watchdog over the event loop: a thread that logs the place in the code when a turn of the loop takes too long.

Theory. All requests share one event loop, so a function that computes for a second delays every request by a second.
The watchdog's thread checks the loop a few times within the permitted duration. A loop that waits in its selector is
idle. To a loop that runs it submits a callback; as long as the callback has not run, the loop is still in the same
turn.

A machine that is short of CPU makes a loop late through no fault of the loop. A turn therefore counts by CPU time: that
of the loop's thread, or, if other threads kept the interpreter from it, that of the process. Only places in the code
are logged, never values.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from puna.rate_limited_log import RateLimitedLogger

log = logging.getLogger(__name__)

BUSY: Final = "the event loop was busy"
"""The beginning of each warning; tests look for it."""
WARNING_INTERVAL: Final = 10.0
"""Least number of seconds between two warnings."""
_CHECKS: Final = 2
"""Number of checks within the permitted duration of a turn."""
_IDLE_CPU_SECONDS: Final = 0.001
"""CPU seconds between two checks below which the loop counts as idle."""
_DEPTH: Final = 6
"""Number of frames that a warning names."""


class Watchdog:
    """Watches one event loop. `run` is the body of its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, allowed: float, thread: int) -> None:
        """`allowed` is how many seconds a turn may take; `thread` is the id of the thread that runs the loop."""
        self._loop = loop
        self._allowed = allowed
        self._thread = thread
        self._cpu = _cpu_clock(thread)
        self._stop = threading.Event()
        self._beat_done = threading.Event()
        self._log = RateLimitedLogger(log, WARNING_INTERVAL)

    def run(self) -> None:
        """Watch until `stop` is called."""
        while True:
            start = self._clocks()
            if self._stop.wait(self._allowed / _CHECKS):
                return
            # Reading two clocks is all that an idle loop costs. Only a loop that has worked is looked at more closely.
            if self._cpu() - start[1] < _IDLE_CPU_SECONDS and time.monotonic() - start[0] < self._allowed:
                continue
            # The only way to see where another thread is. The frame refers to local values, so it is dropped as soon as
            # possible.
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001
            if frame is None:
                return
            place = _place(frame)
            # A check that comes late was kept from the interpreter by a single call into native code.
            if not self._judge(start, place or "native code") and not _is_idle(frame):
                del frame
                self._follow(place)

    def stop(self) -> None:
        """Make `run` return."""
        self._stop.set()

    def _follow(self, place: str) -> None:
        """Wait for the end of the current turn; warn while it takes too long, at growing intervals."""
        # Callbacks run in order at the beginning of the next turn, so this one marks the end of the current turn.
        self._beat_done.clear()
        start = self._clocks()
        try:
            self._loop.call_soon_threadsafe(self._beat_done.set)
        except RuntimeError:  # the loop is closed
            self._stop.set()
            return
        warned_at = 0.0
        while not self._beat_done.wait(self._allowed / _CHECKS) and not self._stop.is_set():
            if frame := sys._current_frames().get(self._thread):  # noqa: SLF001
                place = _place(frame) or place
            # Each warning comes after four times the time of the last, so that one endless turn does not fill the log.
            if self._clocks()[1] - start[1] >= max(self._allowed, 4 * warned_at):
                warned_at = self._clocks()[1] - start[1]
                self._warn(warned_at, place)
        # The turn was short by the CPU time of its thread. Other threads may have kept it waiting.
        if not warned_at:
            self._judge(start, place)

    def _clocks(self) -> tuple[float, float, float]:
        """Return the time, the CPU time of the loop's thread and the CPU time of the process, in seconds."""
        return time.monotonic(), self._cpu(), time.process_time()

    def _judge(self, start: tuple[float, float, float], place: str) -> bool:
        """Warn if the turn since `start` took too long by CPU time; return whether it was long by the clock."""
        elapsed, own, every = (now - then for now, then in zip(self._clocks(), start, strict=True))
        if elapsed < self._allowed * (1 + 1 / _CHECKS):
            return False
        if own >= self._allowed:
            self._warn(own, place)
        # The process must have computed for most of the time. Otherwise the machine was busy with other programs.
        elif every >= max(2 * self._allowed, 0.8 * elapsed):
            self._warn(elapsed, f"other threads kept it waiting at {place or 'its selector'}")
        return True

    def _warn(self, seconds: float, place: str) -> None:
        self._log.warn("%s for %.2f s: %s", BUSY, seconds, place)


@contextmanager
def watching(allowed: float) -> Generator[None]:
    """Watch the running loop, whose turns may take `allowed` seconds, until the block ends."""
    dog = Watchdog(asyncio.get_running_loop(), allowed, threading.get_ident())
    thread = threading.Thread(target=dog.run, name="watchdog", daemon=True)
    # A limit of 0 is read as infinity and disables the watchdog. Event.wait accepts no longer timeout than this.
    if allowed < threading.TIMEOUT_MAX:
        thread.start()
    try:
        yield
    finally:
        dog.stop()


def _cpu_clock(thread: int) -> Callable[[], float]:
    """Return a function for the CPU time of a thread in seconds; of the process where threads have no clock."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    # The id stays valid as long as the thread lives, which is longer than the watchdog runs.
    clock = time.pthread_getcpuclockid(thread)
    return lambda: time.clock_gettime(clock)


def _is_idle(frame: FrameType) -> bool:
    """Return whether a frame is the selector's, which waits for events."""
    return frame.f_code.co_name == "select" and frame.f_globals.get("__name__") == "selectors"


def _place(frame: FrameType) -> str:
    """Return a frame and its callers as text, innermost first, up to the event loop; empty for the loop itself."""
    names: list[str] = []
    at: FrameType | None = frame
    while at is not None and len(names) < _DEPTH:
        module = str(at.f_globals.get("__name__", "?"))
        if module.startswith("asyncio.") or module == "selectors":
            break
        names.append(f"{module}:{at.f_lineno} {at.f_code.co_name}")
        at = at.f_back
    return " < ".join(names)
