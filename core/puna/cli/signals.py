"""The handling of SIGINT, SIGTERM and SIGHUP in a server, and the end of the process.

A first signal lets a server end in order, with status 0. A second one ends it at once: its processes are killed, its
temporary files are removed, and its status is 128 and the number of the signal. Signals after that change nothing. A
server that is not ready yet has nothing to put in order, so its first signal ends it at once, too.

Python's own way would raise KeyboardInterrupt wherever the event loop happens to be. asyncio would then cancel all
tasks in no order, in the middle of their clean-up, and CPython 3.11 crashes there: it resumes a coroutine whose frame
is freed. So no signal raises anything in a server. The interpreter writes the signal's number into a pipe, and a thread
acts on it, however busy the loop is. The interpreter's own shutdown is left out: threads of libraries still run then.
"""

import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from puna.cli import early
from puna.cli.early import ENDING, status_of
from puna.process import exit as process_exit


def finish(status: int) -> NoReturn:
    """End this process with what it has started, after all is written, without the interpreter's own shutdown."""
    early.ignore()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader has gone
            stream.flush()
    process_exit.exit_now(status)


class Signals:
    """The signals of a server."""

    def __init__(self) -> None:
        """Listen. The main thread must call it."""
        self._in_order: Callable[[], object] | None = None
        self._heard: int = signal.SIGTERM
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, _note)

    def expect(self, in_order: Callable[[], object]) -> None:
        """Have the next signal call `in_order`, in a thread, instead of ending this process at once."""
        self._in_order = in_order

    def end_within(self, seconds: float) -> None:
        """End this process at once if it still runs after some seconds."""
        if seconds < math.inf:
            timer = threading.Timer(seconds, process_exit.exit_now, [status_of(self._heard)])
            timer.daemon = True
            timer.start()

    def _listen(self) -> None:
        while True:
            for number in os.read(self._reading, 64):
                if number in ENDING:
                    self._hear(number)

    def _hear(self, number: int) -> None:
        in_order, self._in_order = self._in_order, None
        self._heard = number
        if in_order is None:
            process_exit.exit_now(status_of(number))
        in_order()


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing: the interpreter has written the number into the pipe."""
