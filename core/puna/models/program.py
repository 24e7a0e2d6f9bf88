"""Running a program that tells its progress, so that what it loads and what it crashes on stay outside."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

from puna import children

_PROGRESS: Final = re.compile(r"progress (\d+) (\d+)")


class ProgramError(Exception):
    """The program failed."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"exit status {status}" if status > 0 else f"signal: {-status}")
        self.status = status
        """Negative: the signal that ended it."""
        self.said = said
        """What it wrote to standard error."""


def run(module: str, *arguments: str, given: str = "") -> Iterator[tuple[int, int]]:
    """Run `python -m module`; yields the numbers of its lines `progress DONE TOTAL`. `given` is its standard input.

    Closing the iterator before its end kills the program. Raises ProgramError.
    """
    command = [sys.executable, "-P", "-m", module, *arguments]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as source,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
    ):
        source.write(given)
        source.seek(0)
        with subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=errors, text=True, env=children.environment()
        ) as process:
            try:
                for line in process.stdout or ():
                    if match := _PROGRESS.match(line):
                        yield int(match[1]), int(match[2])
                status = process.wait()
            finally:
                process.kill()
        if status != 0:
            errors.seek(0)
            raise ProgramError(status, errors.read().strip())
