"""Signal handling from the first moment of a process. Programs import this module first, so it imports little."""

import os
import signal
from types import FrameType

HANGUP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
"""SIGHUP, which a closing terminal sends; empty if the process was started with it ignored, as nohup does."""
ENDING = (signal.SIGINT, signal.SIGTERM, *HANGUP)


def status_of(number: int) -> int:
    """Return the exit status that shells show for a process that a signal has ended."""
    return 128 + number


def begin() -> None:
    """Make signals end this process without a traceback. Nothing needs cleaning up yet."""
    for number in ENDING:
        signal.signal(number, _leave)


def interruptible() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again, for commands that do not serve. Has no effect without `begin`."""
    if signal.getsignal(signal.SIGINT) is _leave:
        for number in (signal.SIGTERM, *HANGUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore() -> None:
    """Ignore signals from now on. The command is done, and a signal would give a traceback during shutdown."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of signal handlers
    os._exit(status_of(number))
