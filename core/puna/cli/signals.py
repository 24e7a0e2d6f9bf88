"""Handling of SIGINT, SIGTERM and SIGHUP in a server, and the end of the process.

The first signal starts a graceful stop, which ends with status 0. The second signal ends the server at once: its child
processes are killed, its temporary files are removed, and its status is 128 plus the number of the signal. Later
signals have no effect. The first signal before the server is ready also ends it at once.

SIGHUP has two meanings. The kernel sends it when the terminal closes in which the server was started, and then it is a
signal like the others. Otherwise an operator sends it, and the server reads its configuration again.

Python's default handler raises KeyboardInterrupt in the event loop, at any point. asyncio then cancels all tasks
without order, in the middle of their clean-up, and CPython 3.11 crashes there by resuming a coroutine whose frame is
freed. So no signal raises an exception in a server. The interpreter writes the signal's number into a pipe, and a
thread acts on it, even if the loop is busy. The interpreter's shutdown is skipped, because threads of libraries still
run then.
"""

import math
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from puna.cli import early
from puna.cli.early import ENDING, status_of
from puna.process import exit as process_exit


def finish(status: int) -> NoReturn:
    """Flush output and end this process and its children, without the interpreter's shutdown."""
    early.ignore()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader of the pipe is gone
            stream.flush()
    process_exit.exit_now(status)


class Signals:
    """The signal handlers of a server."""

    def __init__(self) -> None:
        """Install the handlers. Must be called by the main thread."""
        self._in_order: Callable[[], object] | None = None
        self._reload: Callable[[], object] | None = None
        self._had_terminal = has_terminal()
        self._heard: int = signal.SIGTERM
        self._reading, writing = os.pipe()
        # set_wakeup_fd refuses a descriptor that blocks: the interpreter must never wait in a signal handler.
        os.set_blocking(writing, False)
        # A thread of its own, since the loop may be busy, and the main thread may be inside native code.
        threading.Thread(target=self._listen, name="signals", daemon=True).start()
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in ENDING:
            # With SIG_DFL or SIG_IGN the interpreter would not write to the pipe.
            signal.signal(number, _note)

    def expect(self, in_order: Callable[[], object], reload: Callable[[], object] | None = None) -> None:
        """Make the next signal call `in_order` in a thread, instead of ending the process at once.

        SIGHUP of an operator calls `reload` instead, each time.
        """
        self._in_order, self._reload = in_order, reload

    def end_within(self, seconds: float) -> None:
        """End the process if it still runs after `seconds`."""
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
        closed = self._had_terminal and not has_terminal()
        if number == signal.SIGHUP and self._reload is not None and self._in_order is not None and not closed:
            self._reload()
            return
        # Taken away, so that the next signal finds nothing to call and ends the process.
        in_order, self._in_order = self._in_order, None
        self._heard = number
        if in_order is None:
            process_exit.exit_now(status_of(number))
        in_order()


def has_terminal() -> bool:
    """Return whether standard input is a terminal that is open."""
    try:
        termios.tcgetattr(0)
    except (OSError, termios.error):
        return False
    return True


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing. The interpreter has written the number into the pipe."""
