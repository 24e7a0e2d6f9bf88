"""Ends this process immediately, together with the processes that it started and its temporary files.

A process that ends in order cleans up through its context managers. One that must end in the middle of its work has no
time for them: it kills every process group in GROUPS, removes every path in PATHS, and exits without the interpreter's
shutdown, which would run code of half-finished requests. Adding to a set and discarding from it are atomic operations,
so any thread may do either.
"""

import logging
import os
import shutil
import signal
from contextlib import suppress
from typing import Final, NoReturn

GROUPS: Final[set[int]] = set()
"""Ids of the process groups to kill."""
PATHS: Final[set[str]] = set()
"""Files and folders to remove."""


def kill_group(group: int) -> None:
    """Kill the processes of a group. Does nothing if there are none."""
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def kill_groups() -> None:
    """Kill every registered process group."""
    # A copy, since other threads change the set meanwhile.
    for group in tuple(GROUPS):
        kill_group(group)


def exit_now(status: int) -> NoReturn:
    """End this process, its processes and its temporary files. May be called from any thread."""
    logging.disable()  # other threads run on for a moment and would log the death of the processes
    # Processes first: a host that still runs would write into the folders that are removed next.
    kill_groups()
    for path in tuple(PATHS):
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 (a file is not removed by rmtree)
    os._exit(status)
