"""A worker process from the core's side: its start, its requests, and its end.

The core believes nothing that a worker sends: a message that is too long, comes unasked or is not JSON ends the worker.
"""

import asyncio
import hashlib
import os
import socket
import sys
import time
from contextlib import suppress
from typing import Final, Self

from puna.limits import Limits
from puna.process import exit as process_exit
from puna.sandbox import wire
from puna.sandbox.wire import JSON

START_SECONDS: Final = 60.0
"""How long a worker may take until it sends its first message."""
CACHED_TEMPLATES: Final = 64
"""Number of templates that a worker keeps. The next new one makes it drop them all."""
_CPU_OF_PROCESS: Final = 2
"""Low bits of a Linux clock id that select the CPU-time clock of a process."""
_KEPT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_TIME", "TZ", "TMPDIR")
"""Environment variables that a worker inherits. None holds a secret."""


class WorkerGoneError(Exception):
    """A worker ended, was killed, or sent something invalid."""


class Template:
    """A template in the form that is sent to each worker once. `key` identifies it afterwards."""

    __slots__ = ("content", "key")

    def __init__(self, content: JSON) -> None:
        self.content = content
        # A worker may hold templates of several models, so the key must not depend on a name.
        self.key = hashlib.sha256(wire.pack(content)).hexdigest()


class _WorkerProtocol(asyncio.Protocol):
    """Splits the worker's bytes into messages. At most one message is awaited at a time."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[JSON] = asyncio.get_running_loop().create_future()
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for sending."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of a message. A worker that sends more than the awaited message is ended."""
        self._data += data
        if len(self._data) < wire.HEADER.size:
            return
        (size,) = wire.HEADER.unpack_from(self._data)
        end = wire.HEADER.size + size
        # All three are impossible for an honest worker, which answers one request with one message of bounded length.
        if size > self._longest or len(self._data) > end or self.answer.done():
            self.fail()
        elif len(self._data) == end:
            with memoryview(self._data) as whole:
                try:
                    value = wire.unpack(whole[wire.HEADER.size :])
                except wire.InvalidAnswerError:
                    # An honest message is never null.
                    value = None
            self._data.clear()
            if value is None:
                self.fail()
            else:
                self.answer.set_result(value)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Fail the awaited message."""
        self.gone = True
        # A worker that ends between two requests has nothing to fail.
        if not self.answer.done():
            self.answer.set_exception(WorkerGoneError())

    def fail(self) -> None:
        """Close the connection and take nothing more."""
        self.gone = True
        if self._transport is not None:
            self._transport.abort()

    def write(self, data: bytes) -> None:
        """Send a message."""
        assert self._transport is not None
        self._transport.write(data)


class Worker:
    """A running `python -m puna.sandbox`. The caller of `start` must call `close`."""

    def __init__(self, process: asyncio.subprocess.Process, protocol: _WorkerProtocol) -> None:
        self._process = process
        self._protocol = protocol
        self._sent: set[str] = set()

    @classmethod
    async def start(cls, limits: Limits, *, yielding: bool = False) -> Self:
        """Start a worker and wait until it listens. Raises WorkerGoneError or OSError.

        `yielding` gives it a low CPU priority.
        """
        # A socket pair and not pipes: one descriptor in the worker, and nothing in the file system that others could
        # open.
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                ours.setblocking(False)
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",  # a file in the current folder must not shadow a module
                    "-m",
                    "puna.sandbox",
                    stdin=theirs.fileno(),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,  # it may quote prompts
                    env={name: os.environ[name] for name in _KEPT if name in os.environ},
                    cwd="/",
                    process_group=0,  # Ctrl-C in a terminal reaches the core alone
                )
            # JSON escapes quotes and line breaks with a second byte, hence twice the output.
            longest = 2 * limits.template_output_bytes + wire.SLACK
            _, protocol = await asyncio.get_running_loop().create_connection(
                lambda: _WorkerProtocol(longest), sock=ours
            )
        except BaseException:
            ours.close()
            raise
        process_exit.GROUPS.add(process.pid)
        worker = cls(process, protocol)
        try:
            async with asyncio.timeout(START_SECONDS):
                # The first message shows that the imports are done, so the time of a start never counts against a
                # request.
                await protocol.answer
        except BaseException as error:
            await worker.close()
            if isinstance(error, TimeoutError):
                raise WorkerGoneError from error
            raise
        settings = {
            "memory": limits.template_memory_bytes,
            "output": limits.template_output_bytes,
            "yielding": yielding,
        }
        protocol.write(wire.pack(settings))
        return worker

    @property
    def gone(self) -> bool:
        """Whether the worker has ended."""
        return self._protocol.gone

    def cpu_seconds(self) -> float:
        """Return the CPU time of the worker in seconds; the wall-clock time where the system does not tell."""
        if sys.platform == "linux":
            with suppress(OSError):
                # The kernel's clock id for the CPU time of another process, as clock_getcpuclockid() computes it;
                # Python has no such call.
                return time.clock_gettime(~self.pid << 3 | _CPU_OF_PROCESS)
        return time.monotonic()

    @property
    def waiting(self) -> bool:
        """Whether a request has been sent and not been answered."""
        return not self._protocol.answer.done()

    async def settled(self, seconds: float) -> None:
        """Wait up to `seconds` for an answer whose request was cancelled; kill the worker if it does not come."""
        answer = self._protocol.answer
        await asyncio.wait((answer,), timeout=seconds)
        if not answer.done():
            self.kill()
            await asyncio.wait((answer,))
        if not answer.cancelled():
            answer.exception()  # retrieved, or asyncio would log it

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, template: Template, request: dict[str, JSON]) -> asyncio.Future[JSON]:
        """Send a request and return the future of its answer, which may raise WorkerGoneError.

        The previous request must have been answered.
        """
        request["key"] = template.key
        if template.key not in self._sent:
            if len(self._sent) >= CACHED_TEMPLATES:
                self._sent.clear()
                # Dropping all at once keeps both sides equal without a protocol for single templates.
                request["forget"] = True
            self._sent.add(template.key)
            request["template"] = template.content
        self._protocol.answer = answer = asyncio.get_running_loop().create_future()
        if self._protocol.gone:
            # The caller then takes the same way as for a worker that ends during the request.
            answer.set_exception(WorkerGoneError())
        else:
            self._protocol.write(wire.pack(request))
        return answer

    def kill(self) -> None:
        """Kill the worker and every process that it started."""
        # After the process was waited for, its id may belong to another program.
        if self._process.returncode is None:
            process_exit.kill_group(self.pid)
        self._protocol.fail()

    async def close(self) -> None:
        """Kill the worker and wait until it has ended."""
        self.kill()
        await self._process.wait()
        process_exit.GROUPS.discard(self.pid)
