"""What a host writes straight to the pipe to the core, since its event loop may be blocked, or its logging changed.

The core reads these lines from the host's standard error, and every other line as output.
"""

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from puna.host.channel import ERROR, LONGEST_REPORT, PROGRESS
from puna.traceback_summary import summarize

LINE_SECONDS: Final = 0.2
"""Least interval between two lines about the progress of a load."""

UNDESCRIBED: Final = "an exception that cannot be described"


class _Pipe:
    """The pipe to the core."""

    descriptor = 2


def keep_stderr() -> None:
    """Keep standard error for reports, since libraries redirect it while they load."""
    _Pipe.descriptor = os.dup(2)


def report_error(what: str, error: BaseException) -> None:
    """Have the core log the plugin's exception under the model's name: its class and its traceback, without its text.

    `what` says what failed, as a clause.
    """
    try:
        summary = summarize(error)
    except BaseException:  # a plugin's exception may raise anything when it is looked at
        summary = UNDESCRIBED
    _write(ERROR, json.dumps(f"{what}: {summary}"[:LONGEST_REPORT]))


class LoadProgress:
    """The progress of a load, which a plugin may report from any thread.

    `tell` is called in the event loop with each fraction. While the loop is blocked, lines to the core replace it, so
    that a load which blocks the loop and proceeds does not look like one that hangs.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object], tell: Callable[[float], None]) -> None:
        """`call_soon` runs a function in the event loop; it is called in the plugin's thread."""
        self._call_soon = call_soon
        self._tell = tell
        self._pending: float | None = None
        """The fraction that the loop has not taken yet."""
        self._last_sign = time.monotonic()
        """When the core last got a sign of life."""

    def report(self, fraction: float) -> None:
        """Report a fraction. What is no number from 0 to 1 is drawn into that range, or ignored."""
        try:
            number = float(fraction)
        except Exception:  # a plugin may pass anything
            return
        if math.isnan(number):
            return
        waiting, self._pending = self._pending, min(max(number, 0.0), 1.0)
        if waiting is None:
            with suppress(RuntimeError):  # the loop has ended
                self._call_soon(self._take)
        elif (now := time.monotonic()) - self._last_sign >= LINE_SECONDS:
            self._last_sign = now
            _write(PROGRESS, f"{self._pending:.4f}")

    def _take(self) -> None:
        fraction, self._pending = self._pending, None
        self._last_sign = time.monotonic()
        if fraction is not None:
            self._tell(fraction)


def _write(kind: str, text: str) -> None:
    # One write per line, so that output of other threads does not stand in the middle of it.
    with suppress(OSError):  # the core is gone, or the plugin has closed the pipe
        os.write(_Pipe.descriptor, f"{kind}{text}\n".encode())
