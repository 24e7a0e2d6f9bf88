"""Programs that are started, killed and started again, and the processes that they may not leave behind."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

MARK: Final = "PUNA_SOAK_RUN"
"""The environment variable by which the processes of a run are known, also those that have lost their parent."""
PRIORITY: Final = -10
START_SECONDS: Final = 120.0
END_SECONDS: Final = 40.0


def give_priority(pid: int) -> None:
    """Prefer the processes of a session's leader to others, where that is allowed.

    The parts of Ray give up on each other when starting takes them too long.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PGRP, pid, PRIORITY)
        # Where Linux groups processes by session, this is what counts.
        Path(f"/proc/{pid}/autogroup").write_text(str(PRIORITY))


class ProgramError(Exception):
    """A program did not start or end."""


@dataclass(slots=True)
class Program:
    """A program whose first line on standard output says that it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: re.Pattern[str]
    log: Path
    """The file that gets its standard error, over all its starts."""
    _process: subprocess.Popen[str] | None = field(default=None)

    async def start(self) -> re.Match[str]:
        """Start it and wait until it is ready; return the match of `ready`. Raises ProgramError."""
        with self.log.open("ab") as errors:
            # Popen and not asyncio's processes, since a test ends them without a loop. It takes a few milliseconds.
            self._process = subprocess.Popen(  # noqa: ASYNC220
                self.command, env=dict(self.environment), stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            line = await asyncio.wait_for(asyncio.to_thread(_stdout(self._process).readline), START_SECONDS)
        except TimeoutError:
            self._process.kill()
            raise ProgramError(f"{self.name} does not start: {self.text()[-2000:]}") from None
        match = self.ready.search(line)
        if match is None:
            raise ProgramError(f"{self.name} has not started: {line}{self.text()[-2000:]}")
        return match

    @property
    def pid(self) -> int:
        """Process id of the last start; 0 before the first."""
        return self._process.pid if self._process is not None else 0

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self.runs:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """Kill it."""
        self.signal(signal.SIGKILL)
        await self.end()

    async def end(self) -> None:
        """End it, and wait for its end. Raises ProgramError."""
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise ProgramError(f"{self.name} does not end") from None
        finally:
            _stdout(self._process).close()

    def text(self) -> str:
        """Return what it has written to standard error, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def _stdout(process: "subprocess.Popen[str]") -> IO[str]:
    if process.stdout is None:
        raise RuntimeError("the program has no pipe")
    return process.stdout


def parents() -> dict[int, int]:
    """Map each live process to its parent. Zombies do not count."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def send(pid: int, number: int) -> None:
    """Send a signal to a process, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def marked(run: str) -> Iterator[int]:
    """Yield the live processes of a run."""
    mark = f"{MARK}={run}".encode()
    for pid in parents():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if pid != os.getpid() and mark in environment.split(b"\0"):
            yield pid


def command(pid: int) -> str:
    """Return the command line of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def hosts(run: str) -> set[int]:
    """Return the model hosts of a run, those included that have lost their parent."""
    return {pid for pid in marked(run) if "puna.host" in command(pid)}


def below(roots: set[int]) -> set[int]:
    """Return processes and all their descendants."""
    found, table = set(roots), parents()
    while more := {pid for pid, parent in table.items() if parent in found} - found:
        found |= more
    return found
