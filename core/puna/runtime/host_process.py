"""One host process: starting it, its last words, why it died, and its end."""

import asyncio
import logging
import signal
import sys
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

from puna.errors import LoadFailedError
from puna.host.channel import READY, SOCKET_VARIABLE
from puna.host.stream import address
from puna.process import child_environment
from puna.process import exit as process_exit

log = logging.getLogger(__name__)

READY_SECONDS = 60.0
"""How long a host may take from its start until it listens. Nothing heavy is imported before."""
LEAST_READY_SECONDS = 10.0
"""The same at least, where a load may show no sign of life for less: interpreters start slowly on a busy machine."""
TERM_SECONDS = 5.0
"""How long a host may take to end by itself after SIGTERM."""
KILL_SECONDS = 5.0
"""How long a host may take to end after SIGKILL. One that waits for a broken disk may take for ever."""
KEPT_LINES = 20
TOLD_LINES = 3
"""Of the last lines, how many an error tells."""
TOLD_CHARACTERS = 300

CAUSES = {
    signal.SIGKILL: "killed, probably out of memory",
    signal.SIGILL: "the CPU lacks instructions that the backend was built for",
    signal.SIGSEGV: "segmentation fault in native code",
    signal.SIGBUS: "bus error, perhaps the model's file was cut while it was mapped",
    signal.SIGABRT: "native code gave up",
    signal.SIGFPE: "arithmetic error in native code",
    signal.SIGTERM: "told to end",
}


class HostProcess:
    """A running `python -m puna.host`. Whoever starts it must stop it."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path) -> None:
        self._process = process
        self._socket = socket
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reading = asyncio.gather(self._read(process.stdout), self._read(process.stderr))
        self.on_output: Callable[[], None] = lambda: None
        """Called at each sign of life."""

    @classmethod
    async def start(cls, socket: Path, patience: float = READY_SECONDS) -> Self:
        """Start a host and wait until it listens. LoadFailedError: it did not within `patience` seconds."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # whatever lies in the current folder must not shadow a module
            "-m",
            "puna.host",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=child_environment.environment() | {SOCKET_VARIABLE: str(socket), "PYTHONUNBUFFERED": "1"},
            process_group=0,  # Ctrl-C in a terminal reaches the core alone, which then ends its hosts in order
        )
        process_exit.GROUPS.add(process.pid)
        async with AsyncExitStack() as undo:
            host = cls(process, socket)
            undo.push_async_callback(host.stop)
            await host._listening(patience)
            undo.pop_all()
        return host

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def last_line(self) -> str:
        """The last line that it wrote to standard error; empty if none."""
        return self._lines[-1] if self._lines else ""

    async def died(self, within: float) -> bool:
        """Wait a while for its end, in seconds, and tell whether it came."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), within)
            await self._last_words()
        return self._process.returncode is not None

    def explain(self) -> str:
        """Say why it ended, with its last words."""
        lines = [line for line in self._lines if line.strip()][-TOLD_LINES:]
        return ": ".join([cause(self._process.returncode), *([" | ".join(lines)[-TOLD_CHARACTERS:]] if lines else [])])

    def kill(self) -> None:
        """End it, and what the backend itself may have started, by force."""
        process_exit.kill_group(self.pid)

    async def stop(self) -> None:
        """End it, by force if need be, and wait until nothing of it is left.

        A process that the kernel holds on to even then is left to the kernel, with a line in the log.
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
        self.kill()
        process_exit.GROUPS.discard(self.pid)
        await self._last_words()
        if self._process.stdin is not None:
            self._process.stdin.close()
        for path in (self._socket, Path(address(self._socket))):
            path.unlink(missing_ok=True)

    def log_last_words(self) -> None:
        """Write the kept lines into our own log."""
        log.error("host %d has ended: %s\n%s", self.pid, cause(self._process.returncode), "\n".join(self._lines))

    async def _listening(self, patience: float) -> None:
        gone = asyncio.ensure_future(self._process.wait())
        either: set[asyncio.Future[Any]] = {self._ready, gone}
        try:
            await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if not self._ready.done():
            if await self.died(within=0.1):
                raise LoadFailedError(terminated(self.explain()))
            raise LoadFailedError("timed out waiting for llama-server to start")

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        rest = b""
        while chunk := await stream.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._hear(line.decode(errors="replace").rstrip())
            self.on_output()
        if rest:
            self._hear(rest.decode(errors="replace").rstrip())

    def _hear(self, line: str) -> None:
        if line == READY and not self._ready.done():
            self._ready.set_result(None)
            return
        self._lines.append(line)
        log.debug("host %d: %s", self.pid, line)

    async def _last_words(self) -> None:
        """Wait for the end of its output, but not for a grandchild that holds the pipes open."""
        await asyncio.wait({self._reading}, timeout=1)
        if not self._reading.done():
            self._reading.cancel()


def cause(returncode: int | None) -> str:
    """Say what an exit status means."""
    if returncode is None:
        return "the connection to it broke"
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        number = signal.Signals(-returncode)
    except ValueError:
        return f"signal {-returncode}"
    return f"{number.name} ({CAUSES[number]})" if number in CAUSES else number.name


def terminated(detail: str) -> str:
    """Return the text for a host that ended while it loaded; clients of the reference know its beginning."""
    return f"llama-server process has terminated: {detail}"
