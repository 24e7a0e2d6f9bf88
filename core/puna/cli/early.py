"""Signals before the command is known. A program of ours imports this module first, so the module imports little."""

import os
import signal
from types import FrameType

HANGUP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
"""SIGHUP, which a closing terminal sends, unless this process was started with it ignored, as nohup does."""
ENDING = (signal.SIGINT, signal.SIGTERM, *HANGUP)


def status_of(number: int) -> int:
    """Return the exit status of a process that a signal has ended, as shells count."""
    return 128 + number


def begin() -> None:
    """Have signals end this process quietly. There is nothing yet to clean up."""
    for number in ENDING:
        signal.signal(number, _leave)


def interruptible() -> None:
    """Have Ctrl-C raise KeyboardInterrupt again, for a command that is no server. Nothing happens without `begin`."""
    if signal.getsignal(signal.SIGINT) is _leave:
        for number in (signal.SIGTERM, *HANGUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore() -> None:
    """Ignore signals from now on. The command is done, and the interpreter's own shutdown ends on no traceback."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (as Python calls it)
    os._exit(status_of(number))
