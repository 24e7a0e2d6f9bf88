"""Sending files of models to a node, in threads and TLS connections of their own.

A file is gigabytes long, and the event loop carries the tokens of all requests. So a thread reads the file, encrypts
and sends it, all of which Python does without its lock. `puna.runtime.tunnel` has the first lines of a connection.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

import grpc.aio

from puna.backend.v1 import node_pb2 as wire
from puna.errors import LoadFailedError
from puna.process.cluster_tls import NODE_NAME
from puna.request_log import without_request
from puna.runtime.errors import NodeError
from puna.runtime.launcher import OnTransfer
from puna.runtime.tunnel import FILE, LONGEST_LINE, OK, OPEN_SECONDS

CHUNK: Final = 1 << 20
"""Bytes that are read and sent at once."""

FetchCall: TypeAlias = "grpc.aio.UnaryStreamCall[wire.FetchFilesRequest, wire.FetchFilesResponse]"


class FileSender:
    """Sends files to one node."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        """`address` is "host:port"."""
        self.address = address
        self._context = context
        self._sockets: set[socket.socket] = set()
        self._aborted = False

    async def serve(self, call: FetchCall, files: Sequence[wire.ModelFile], on_transfer: OnTransfer) -> None:
        """Send the files that a node wants until it has all. Raises what `send` raises and the errors of the call."""
        known = {each.digest: each for each in files}
        failures: list[LoadFailedError] = []
        sending: set[asyncio.Task[None]] = set()

        async def send(wanted: wire.FileWanted) -> None:
            try:
                # A node gets no file that it was not told of.
                if (file := known.get(wanted.digest)) is None:
                    raise NodeError(f"{self.address} wants a file that is none of the model's")
                await self.send(wanted.transfer_id, file.path, max(wanted.offset, 0), file.bytes)
            except LoadFailedError as error:
                failures.append(error)
                call.cancel()

        try:
            async for event in call:
                if event.HasField("wanted"):
                    task = asyncio.create_task(send(event.wanted), context=without_request())
                    sending.add(task)
                    task.add_done_callback(sending.discard)
                elif event.HasField("progress"):
                    on_transfer(event.progress.done_bytes, event.progress.total_bytes)
        except asyncio.CancelledError:
            # The call was cancelled above, and not the caller.
            if not failures or ((caller := asyncio.current_task()) and caller.cancelling()):
                raise
            raise failures[0] from None
        finally:
            call.cancel()
            for each in tuple(sending):
                each.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def send(self, transfer_id: str, path: str, offset: int, size: int) -> None:
        """Send a file of a known size from an offset to its end, and wait until the node has it.

        Cancelling breaks the connection.
        A connection that breaks is no error here: the node asks again. Raises NodeError if there is no connection, and
        LoadFailedError if the file cannot be read or has shrunk.
        """
        opened: list[socket.socket] = []
        threads = ThreadPoolExecutor(1, "file")
        work = asyncio.get_running_loop().run_in_executor(threads, self._send, transfer_id, path, offset, size, opened)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            for each in opened:
                _break(each)
            await asyncio.wait({work})
            work.exception()  # it counts as retrieved
            raise
        finally:
            threads.shutdown(wait=False)

    def abort(self) -> None:
        """Break every connection, and open no other."""
        self._aborted = True
        for each in tuple(self._sockets):
            _break(each)

    def _send(self, transfer_id: str, path: str, offset: int, size: int, opened: list[socket.socket]) -> None:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_reading(path))
            try:
                tls = self._connect(transfer_id, stack, opened)
            except OSError as error:
                raise NodeError(f"{self.address} cannot be sent a file: {error}") from error
            buffer = memoryview(bytearray(CHUNK))
            while offset < size:
                with _reading_errors(path):
                    count = os.preadv(file, [buffer[: size - offset]], offset)
                if not count:
                    raise LoadFailedError(f"unable to load model: {path} has shrunk while it was read")
                offset += count
                try:
                    tls.sendall(buffer[:count])
                except OSError:
                    return
            with contextlib.suppress(OSError):
                _line(tls)  # closing before the node has everything could lose the rest

    def _connect(self, transfer_id: str, stack: contextlib.ExitStack, opened: list[socket.socket]) -> ssl.SSLSocket:
        """Connect to the node, which waits for the bytes of the transfer then. Raises OSError."""
        host, _, port = self.address.rpartition(":")
        place = (host.removeprefix("[").removesuffix("]"), int(port))
        plain = stack.enter_context(socket.create_connection(place, OPEN_SECONDS))
        # A second descriptor, because shutting an SSLSocket down makes it a socket that sends plain text.
        breaker = stack.enter_context(plain.dup())
        opened.append(breaker)
        self._sockets.add(breaker)
        stack.callback(self._sockets.discard, breaker)
        tls = stack.enter_context(self._context.wrap_socket(plain, server_hostname=NODE_NAME))
        tls.sendall(f"{FILE} {transfer_id}\n".encode())
        if _line(tls) != OK or self._aborted:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the node does not want it any more")
        tls.settimeout(None)
        return tls


@contextlib.contextmanager
def _reading(path: str) -> Iterator[int]:
    """Open a file, and yield its descriptor. Raises LoadFailedError."""
    with _reading_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reading_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LoadFailedError(f"unable to load model: {path} cannot be read: {error.strerror}") from error


def _line(tls: ssl.SSLSocket) -> bytes:
    """Return the line that the node sends."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE and (data := tls.recv(LONGEST_LINE)):
        line += data
    return line


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
