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
    # The imports that follow take a while, and a KeyboardInterrupt in them would print a traceback.
    for number in ENDING:
        signal.signal(number, _leave)


def interruptible() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again, for commands that do not serve. Has no effect without `begin`."""
    # A process that did not call `begin` has handlers of its own, which must stay.
    if signal.getsignal(signal.SIGINT) is _leave:
        for number in (signal.SIGTERM, *HANGUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore() -> None:
    """Ignore signals from now on. The command is done, and a signal would give a traceback during shutdown."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of signal handlers
    # Not sys.exit: an exception in the middle of an import can be caught by the module that is imported.
    os._exit(status_of(number))
