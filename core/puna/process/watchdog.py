"""A watchdog over the event loop: a thread that logs where the loop is when it does not turn.

Every request shares one event loop, so a function that computes for a second delays all of them by a second. The thread
looks a few times within the time that is allowed. A loop that waits in its selector is idle and is left alone. One that
runs is handed a beat; while the beat has not been run, the loop is still in the same turn.

A machine that is short of CPU makes a loop late without any fault of the loop's. So a turn counts only by the CPU time
that the process used meanwhile: the main thread's own, or, where other threads kept the interpreter from it, theirs.
Only places in the code are logged, never values.
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
"""The beginning of a warning."""
WARNING_INTERVAL: Final = 10.0
"""Seconds between two warnings."""
_CHECKS: Final = 2
"""Looks within the time that a turn may take."""
_IDLE_CPU_SECONDS: Final = 0.001
"""Seconds of CPU between two looks below which a loop is idle without a closer look."""
_DEPTH: Final = 6
"""Frames of a place that are named."""


class Watchdog:
    """Watches one event loop from a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, allowed: float, thread: int) -> None:
        """`allowed`: seconds that a turn may take. `thread`: where the loop runs."""
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
            if self._cpu() - start[1] < _IDLE_CPU_SECONDS and time.monotonic() - start[0] < self._allowed:
                continue
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001
            if frame is None:
                return
            place = _place(frame)
            # A look that comes late was kept from the interpreter by one call into native code.
            if not self._judge(start, place or "native code") and not _is_idle(frame):
                del frame
                self._follow(place)

    def stop(self) -> None:
        """Make `run` return."""
        self._stop.set()

    def _follow(self, place: str) -> None:
        """Wait for the end of the turn that the loop is in; warn when it takes too long."""
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
            if self._clocks()[1] - start[1] >= max(self._allowed, 4 * warned_at):
                warned_at = self._clocks()[1] - start[1]
                self._warn(warned_at, place)
        if not warned_at:
            self._judge(start, place)

    def _clocks(self) -> tuple[float, float, float]:
        """Return this moment, the CPU time of the loop's thread and that of the process, in seconds."""
        return time.monotonic(), self._cpu(), time.process_time()

    def _judge(self, start: tuple[float, float, float], place: str) -> bool:
        """Warn if the loop did not turn for too long since `start`, and this process is to blame."""
        elapsed, own, every = (now - then for now, then in zip(self._clocks(), start, strict=True))
        if elapsed < self._allowed * (1 + 1 / _CHECKS):
            return False
        if own >= self._allowed:
            self._warn(own, place)
        elif every >= max(2 * self._allowed, 0.8 * elapsed):
            self._warn(elapsed, f"other threads kept it waiting at {place or 'its selector'}")
        return True

    def _warn(self, seconds: float, place: str) -> None:
        self._log.warn("%s for %.2f s: %s", BUSY, seconds, place)


@contextmanager
def watching(allowed: float) -> Generator[None]:
    """Watch the running loop, which may take `allowed` seconds for a turn, until the block ends."""
    dog = Watchdog(asyncio.get_running_loop(), allowed, threading.get_ident())
    thread = threading.Thread(target=dog.run, name="watchdog", daemon=True)
    if allowed < threading.TIMEOUT_MAX:  # a limit of 0 is none
        thread.start()
    try:
        yield
    finally:
        dog.stop()


def _cpu_clock(thread: int) -> Callable[[], float]:
    """Return what tells the CPU time of a thread in seconds; of the whole process where threads have no clock."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(thread)
    return lambda: time.clock_gettime(clock)


def _is_idle(frame: FrameType) -> bool:
    """Tell whether a thread waits for events."""
    return frame.f_code.co_name == "select" and frame.f_globals.get("__name__") == "selectors"


def _place(frame: FrameType) -> str:
    """Name a frame and its callers, innermost first, up to the event loop; empty for the loop itself."""
    names: list[str] = []
    at: FrameType | None = frame
    while at is not None and len(names) < _DEPTH:
        module = str(at.f_globals.get("__name__", "?"))
        if module.startswith("asyncio.") or module == "selectors":
            break
        names.append(f"{module}:{at.f_lineno} {at.f_code.co_name}")
        at = at.f_back
    return " < ".join(names)
