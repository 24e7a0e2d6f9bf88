"""One host process: its start, its last lines of output, the cause of its death, and its end."""

import asyncio
import json
import logging
import os
import signal
import time
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from puna.host.channel import ERROR, LONGEST_REPORT, PROGRESS, READY, SOCKET_VARIABLE
from puna.host.stream import address
from puna.plugins import Plugin
from puna.plugins.installed import holding
from puna.process import child_environment, package_path
from puna.process import exit as process_exit
from puna.request_log import without_request
from puna.runtime.errors import HostFailedError, HostKilledError
from puna.runtime.launcher import RunningHost

log = logging.getLogger(__name__)

READY_SECONDS = 60.0
"""How long a host may take from its start until it listens. It imports nothing heavy before that."""
MIN_READY_SECONDS = 10.0
"""Lower bound of that time where the load timeout is shorter: an interpreter starts slowly on a busy machine."""
TERM_SECONDS = 5.0
"""How long a host may take to end by itself after SIGTERM."""
KILL_SECONDS = 5.0
"""How long a host may take to end after SIGKILL. A process that waits for a broken disk may never end."""
KEPT_LINES = 20
"""Number of output lines that are kept for the log."""
REPORTED_LINES = 3
"""How many of them an error message contains."""
REPORTED_CHARACTERS = 300
LONGEST_LINE = 4096
"""Characters of a line that are kept."""
CHUNK_BYTES = 1 << 16
CHUNK_PAUSE = 0.01
"""Seconds between two chunks of output, so that a host which prints without end does not keep the core busy."""
LOGGED_REPORTS = 10
"""How many errors of one host are logged within REPORT_SECONDS."""
REPORT_SECONDS = 60.0
WARNING_LEVEL = "WARNING "
WARNING = f"{WARNING_LEVEL}puna"
"""The beginning of a line that Puna's own code in a host has logged as a warning; see puna.host.__main__."""

MESSAGES = tuple(each.encode() for each in (READY, PROGRESS, ERROR, WARNING))
"""The beginnings of lines that mean something to the core."""

KILLED = signal.SIGKILL.name
"""The status of a process that was killed. No process ends so by what its own code does."""

CAUSES = {
    signal.SIGKILL: "killed, probably out of memory",
    # The library may have been built on another CPU. It dies at the first instruction that this one lacks.
    signal.SIGILL: "the CPU lacks instructions that the backend was built for",
    signal.SIGSEGV: "segmentation fault in native code",
    signal.SIGBUS: "bus error, perhaps the model's file was cut while it was mapped",
    signal.SIGABRT: "native code gave up",
    signal.SIGFPE: "arithmetic error in native code",
    signal.SIGTERM: "asked to end",
}


class HostProcess:
    """A running host. The caller of `start` must call `stop`."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path, label: str = "") -> None:
        """`label` names the model in the log."""
        self._process = process
        self._socket = socket
        self._label = label or "a model"
        self._reports = 0
        self._killed = False
        self._report_window = -REPORT_SECONDS
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        streams = (process.stdout, process.stderr)
        readers = [asyncio.create_task(self._read(stream), context=without_request()) for stream in streams]
        self._reading = asyncio.gather(*readers)
        self.on_output: Callable[[], None] = lambda: None
        """Called whenever the process writes something."""
        self.on_progress: Callable[[float], None] = lambda _: None
        """Called with the progress of a load that the host reports beside its gRPC stream."""

    @classmethod
    async def start(cls, backend: Plugin, socket: Path, within: float = READY_SECONDS, label: str = "") -> Self:
        """Start a backend's host and wait until it listens.

        `label` names the model in the log. Raises HostFailedError if the program cannot be started, or does not listen
        `within` so many seconds.
        """
        try:
            with holding(Path(backend.environment)) if backend.environment else nullcontext(()) as inherited:
                process = await asyncio.create_subprocess_exec(
                    *backend.command,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=PIPE,
                    env=_variables(backend, socket),
                    pass_fds=inherited,
                    process_group=0,  # Ctrl-C in a terminal reaches the core alone, which ends its hosts in order
                )
        # The program may have been removed since the manifest was read, or be no program at all.
        except (OSError, ValueError) as error:
            raise HostFailedError(f"the host of backend {backend.name!r} cannot be started: {error}") from error
        # From this moment a second signal to the core kills the host too, even while it starts.
        process_exit.GROUPS.add(process.pid)
        async with AsyncExitStack() as undo:
            host = cls(process, socket, label)
            undo.push_async_callback(host.stop)
            await host._wait_until_listening(within)
            undo.pop_all()
        return host

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def node(self) -> str:
        """Empty: the process runs on this machine."""
        return ""

    @property
    def process_id(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def title(self) -> str:
        """The host in log lines."""
        return f"host {self.pid}"

    @property
    def label(self) -> str:
        """The name of the model in the log."""
        return self._label

    @property
    def last_line(self) -> str:
        """The last line that the process wrote; empty if it wrote none."""
        return self._lines[-1] if self._lines else ""

    async def died(self, within: float) -> bool:
        """Wait up to `within` seconds for the process to end; return whether it has."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), within)
            await self._drain_output()
        return self._process.returncode is not None

    @property
    def last_output(self) -> str:
        """The kept lines of output."""
        return "\n".join(self._lines)

    @property
    def status(self) -> str:
        """How the process ended: the name of a signal, or "exit N"; "disconnected" if it runs."""
        code = self._process.returncode
        if code is None:
            return "disconnected"
        return f"exit {code}" if code >= 0 else cause(code).partition(" (")[0]

    def explain(self) -> str:
        """Return why the process ended, with its last lines of output."""
        lines = [line for line in self._lines if line.strip()][-REPORTED_LINES:]
        return ": ".join(
            [cause(self._process.returncode), *([" | ".join(lines)[-REPORTED_CHARACTERS:]] if lines else [])]
        )

    @property
    def ended(self) -> bool:
        """Whether the process has ended, or has been told to."""
        return self._killed or self._process.returncode is not None

    @property
    def unreachable(self) -> bool:
        """False: the process runs on this machine."""
        return False

    def kill(self) -> None:
        """Kill the process and every process that the backend has started."""
        self._killed = True
        process_exit.kill_group(self.pid)

    async def stop(self) -> None:
        """End the process, with SIGKILL if SIGTERM does not suffice, and remove its sockets.

        A process that does not end even then is left behind, with an error in the log.
        """
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            if self._process.returncode is not None:
                break
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), seconds)
        else:
            if self._process.returncode is None:
                log.error("host %d does not end, although it was killed", self.pid)
        # The process has ended, but the programs that its backend started may still run in its group.
        self.kill()
        process_exit.GROUPS.discard(self.pid)
        await self._drain_output()
        if self._process.stdin is not None:
            self._process.stdin.close()
        # A host that was killed leaves the files of its sockets behind.
        for path in (self._socket, Path(address(self._socket))):
            path.unlink(missing_ok=True)

    def log_last_output(self) -> None:
        """Write the kept lines of output to the log."""
        ended = cause(self._process.returncode)
        log.error("%s: host %d has ended: %s\n%s", self._label, self.pid, ended, self.last_output)

    async def _wait_until_listening(self, within: float) -> None:
        exited = asyncio.ensure_future(self._process.wait())
        either: set[asyncio.Future[Any]] = {self._ready, exited}
        try:
            await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            exited.cancel()
        if not self._ready.done():
            # Both may happen in one turn of the loop: the timeout, and the end of the process, whose cause says more.
            if await self.died(within=0.1):
                raise end_of(self)
            raise HostFailedError("timed out waiting for llama-server to start")

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        rest = b""
        while chunk := await stream.read(CHUNK_BYTES):
            # Not readline: asyncio's reader raises for a line that is longer than its buffer, and native code may print
            # one.
            *lines, rest = (rest + chunk).split(b"\n")
            # A host may print a hundred thousand lines at once, of which only the last few are kept.
            for line in lines if log.isEnabledFor(logging.DEBUG) else _worth_reading(lines):
                self._on_line(line.decode(errors="replace").rstrip())
            if len(rest) > CHUNK_BYTES:
                self._on_line(rest.decode(errors="replace"))
                rest = b""
            self.on_output()
            if len(chunk) == CHUNK_BYTES:
                await asyncio.sleep(CHUNK_PAUSE)
        if rest:
            self._on_line(rest.decode(errors="replace").rstrip())

    def _on_line(self, line: str) -> None:
        # The ready line is a message and not output, so it must not stand among the last lines of an error.
        if line == READY and not self._ready.done():
            self._ready.set_result(None)
        elif line.startswith(PROGRESS):
            with suppress(ValueError):
                self.on_progress(float(line.removeprefix(PROGRESS)))
        elif line.startswith(ERROR):
            self._log_report(line.removeprefix(ERROR))
        else:
            line = line[:LONGEST_LINE]
            self._lines.append(line)
            log.debug("%s: host %d: %s", self._label, self.pid, line)
            if line.startswith(WARNING):
                warn_once(line.removeprefix(WARNING_LEVEL)[:REPORTED_CHARACTERS])

    def _log_report(self, text: str) -> None:
        """Log an exception of the plugin, unless the host has reported too many of late."""
        # By a clock that does not jump, and per host, so that one plugin does not hide the errors of others.
        if (now := time.monotonic()) - self._report_window >= REPORT_SECONDS:
            self._report_window, self._reports = now, 0
        self._reports += 1
        if self._reports == LOGGED_REPORTS:
            log.error("%s: further errors of its backend are not logged for a minute", self._label)
        elif self._reports < LOGGED_REPORTS:
            with suppress(ValueError, RecursionError):
                log.error("%s: %s", self._label, str(json.loads(text))[:LONGEST_REPORT])

    async def _drain_output(self) -> None:
        """Read the rest of the output, but do not wait for a grandchild that holds the pipes open."""
        # The last lines may still be in the pipe when the exit status is known.
        await asyncio.wait({self._reading}, timeout=1)
        if not self._reading.done():
            self._reading.cancel()


def _variables(backend: Plugin, socket: Path) -> dict[str, str]:
    """Return the environment of a backend's host."""
    passed = child_environment.environment(names=backend.usable.host.environment)
    if backend.environment:
        path = package_path.provide(socket.parent)
        passed = package_path.environment(passed, Path(backend.environment) / "venv", path)
    if backend.python_path:
        # In front of what the operator set: the plugin's own folder holds its code.
        passed["PYTHONPATH"] = os.pathsep.join(filter(None, [backend.python_path, passed.get("PYTHONPATH", "")]))
    return passed | {SOCKET_VARIABLE: str(socket), "PYTHONUNBUFFERED": "1"}


def _worth_reading(lines: list[bytes]) -> list[bytes]:
    """Return the lines that mean something to the core, and the last ones."""
    return [line for line in lines[:-KEPT_LINES] if line.startswith(MESSAGES)] + lines[-KEPT_LINES:]


@lru_cache(maxsize=64)
def warn_once(text: str) -> None:
    """Log a host's warning the first time. It is about the installation, so that every later host repeats it."""
    log.warning("%s", text)


def cause(returncode: int | None) -> str:
    """Return an exit status in words."""
    if returncode is None:
        return "the connection to it broke"
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        number = signal.Signals(-returncode)
    except ValueError:
        return f"signal {-returncode}"
    return f"{number.name} ({CAUSES[number]})" if number in CAUSES else number.name


def end_of(host: RunningHost) -> HostFailedError:
    """Return the error of a load during which the process of the host has ended by itself or was killed."""
    return (HostKilledError if host.status == KILLED else HostFailedError)(terminated(host.explain()))


def terminated(detail: str) -> str:
    """Return the error text for a host that ended during the load. Ollama's clients look for its beginning."""
    return f"llama-server process has terminated: {detail}"
