"""The end of a process at once, with the processes that it started and its temporary files.

A process that is unwinding cleans up by its context managers. A process that must end in the middle of its work has no
time for them: it kills every group in GROUPS, removes every path in PATHS, and leaves without the interpreter's own
shutdown, which would run code of half-finished requests. Adding to a set and discarding from it are atomic, so any
thread may do either.
"""

import logging
import os
import shutil
import signal
from contextlib import suppress
from typing import Final, NoReturn

GROUPS: Final[set[int]] = set()
"""Process groups that end with this process."""
PATHS: Final[set[str]] = set()
"""Files and folders that end with this process."""


def kill_group(group: int) -> None:
    """Kill the processes of a group, if there are any."""
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def kill_groups() -> None:
    """Kill every process that this one has started."""
    for group in tuple(GROUPS):
        kill_group(group)


def exit_now(status: int) -> NoReturn:
    """End this process from any thread, with its processes and temporary files."""
    logging.disable()  # other threads run on for a moment, and would wonder what has become of the processes
    kill_groups()
    for path in tuple(PATHS):
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 (a file is not removed by rmtree)
    os._exit(status)
