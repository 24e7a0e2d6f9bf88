"""Ends a child process with its parent, however the parent dies.

On Linux the kernel's parent-death signal does this, also while native code runs. On every system the child holds the
reading end of a pipe whose writing end the parent keeps open: the pipe closes when the parent ends.

`python -m puna.process.lifeline DESCRIPTOR MODULE ARGUMENTS` runs a module that is ended in both ways.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Does nothing outside Linux."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with(descriptor: int) -> None:
    """Kill this process when the pipe of `descriptor` closes. A thread waits for it, also during native calls."""

    # The pipe need not carry data. A read returns nothing only when the last writing end is closed, which the kernel
    # does for a parent that was killed.
    def watch() -> None:
        while os.read(descriptor, 1024):
            pass
        # SIGKILL, since the module may be in native code that never returns to Python's signal handlers.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main() -> None:
    """Run the module that the arguments name."""
    die_with_parent()
    end_with(int(sys.argv[1]))
    # The module finds its own arguments where it expects them.
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
