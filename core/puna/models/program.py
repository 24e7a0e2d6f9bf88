"""Running a Python module as a program that reports its progress.

The quantizer and the converter run so: their native libraries, memory and crashes stay outside the server. The
program runs under `puna.process.lifeline` in a process group of its own. It ends when the pipe to this process
closes, however this process dies, and Ctrl-C in a terminal does not reach it.
"""

import logging
import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Final

from puna.errors import CreateFailedError
from puna.process import child_environment
from puna.process import exit as process_exit
from puna.process.temporary_folders import Scratch

log = logging.getLogger(__name__)

_PROGRESS: Final = re.compile(r"progress (\d+) (\d+)")
_LOOK_MS: Final = 200
"""Milliseconds between two checks of `stopped` while the program is silent."""
_WARNING: Final = re.compile(r"warning (.*)")


class ProgramError(Exception):
    """The program ended with an error."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"exit status {status}" if status > 0 else f"signal: {-status}")
        self.status = status
        """The exit status; negative for a signal."""
        self.said = said
        """What it wrote to standard error."""


def run(
    module: str, *arguments: str, given: str = "", stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, int]]:
    """Run `python -m module`; yields the numbers of its lines `progress DONE TOTAL`, and logs its lines `warning TEXT`.
    `given` is its standard input.

    Closing the iterator before its end kills the program; so does `stopped`, which is asked also while the program is
    silent. The program also ends with this process, however that dies; its temporary files go with it, or are swept up
    by the next server. Raises ProgramError, OSError, and CreateFailedError when it was stopped.
    """
    # Standard input and error are files and not pipes: a pipe that no process empties would block the program.
    with (
        Scratch() as scratch,
        tempfile.TemporaryFile("w+", encoding="utf-8") as source,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
    ):
        source.write(given)
        source.seek(0)
        with _started([module, *arguments], source, errors, scratch.path) as process:
            try:
                for line in _lines(process, stopped):
                    if match := _PROGRESS.match(line):
                        yield int(match[1]), int(match[2])
                    elif match := _WARNING.match(line):
                        log.warning("%s: %s", module, match[1])
                status = process.wait()
            finally:
                # This also runs when the iterator is closed early. The group includes processes that the program has
                # started.
                process_exit.kill_group(process.pid)
                process_exit.GROUPS.discard(process.pid)
        if status != 0:
            errors.seek(0)
            raise ProgramError(status, errors.read().strip())


def _lines(process: "subprocess.Popen[bytes]", stopped: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines of a program's output. Raises CreateFailedError once `stopped()` is true."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    rest = b""
    while True:
        if stopped():
            raise CreateFailedError("request canceled")
        # The wait is short, so that `stopped` is asked while the program is silent.
        if ready.poll(_LOOK_MS):
            chunk = os.read(descriptor, 1 << 16)
            *lines, rest = (rest + chunk).split(b"\n")
            # An empty chunk is the end of the output, whose last line may lack a line end.
            for line in lines if chunk else [rest]:
                yield line.decode(errors="replace")
            if not chunk:
                return


@contextmanager
def _started(
    command: list[str], source: IO[str], errors: IO[str], temporary: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program in a process group of its own."""
    # The program watches the reading end. Nothing is ever written: the kernel closes the writing end with this process.
    reading, writing = os.pipe()
    with ExitStack() as ends:
        ends.callback(os.close, writing)
        # This process closes its copy of the reading end as soon as the child has one.
        with ExitStack() as childs:
            childs.callback(os.close, reading)
            process = subprocess.Popen(
                # -P keeps the current folder out of the module path, so that a file in it cannot replace a module.
                [sys.executable, "-P", "-m", "puna.process.lifeline", str(reading), *command],
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Temporary files of the program go into the scratch folder, which is removed even if the program is
                # killed.
                env=child_environment.environment() | {"TMPDIR": str(temporary)},
                pass_fds=[reading],
                process_group=0,
            )
        process_exit.GROUPS.add(process.pid)
        with process:
            yield process
