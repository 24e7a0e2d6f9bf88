"""Sending files of models to a node, in threads and TLS connections of their own.

A file is gigabytes long, and the event loop carries the tokens of all requests. So a thread reads the file, encrypts
and sends it, all of which Python does without its lock. `puna.runtime.tunnel` has the first lines of a connection.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from puna.errors import LoadFailedError
from puna.process.cluster_tls import NODE_NAME
from puna.runtime.errors import NodeError
from puna.runtime.tunnel import FILE, LONGEST_LINE, OK, OPEN_SECONDS

CHUNK: Final = 1 << 20
"""Bytes that are read and sent at once."""


class FileSender:
    """Sends files to one node."""

    def __init__(self, address: str, context: ssl.SSLContext) -> None:
        """`address` is "host:port"."""
        self.address = address
        self._context = context
        self._sockets: set[socket.socket] = set()
        self._aborted = False

    async def send(self, transfer_id: str, path: str, offset: int) -> None:
        """Send a file from an offset to its end, and wait until the node has it. Cancelling breaks the connection.

        A connection that breaks is no error here: the node asks again. Raises NodeError if there is no connection, and
        LoadFailedError if the file cannot be read.
        """
        opened: list[socket.socket] = []
        threads = ThreadPoolExecutor(1, "file")
        work = asyncio.get_running_loop().run_in_executor(threads, self._send, transfer_id, path, offset, opened)
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

    def _send(self, transfer_id: str, path: str, offset: int, opened: list[socket.socket]) -> None:
        host, _, port = self.address.rpartition(":")
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(open(path, "rb", buffering=0))  # noqa: PTH123 - a path from the wire
                os.lseek(file.fileno(), offset, os.SEEK_SET)
            except OSError as error:
                raise LoadFailedError(f"unable to load model: {path} cannot be read: {error.strerror}") from error
            try:
                place = (host.removeprefix("[").removesuffix("]"), int(port))
                plain = stack.enter_context(socket.create_connection(place, OPEN_SECONDS))
                # A second descriptor, because shutting an SSLSocket down makes it a socket that sends plain text.
                breaker = stack.enter_context(plain.dup())
                opened.append(breaker)
                self._sockets.add(breaker)
                stack.callback(self._sockets.discard, breaker)
                tls = stack.enter_context(self._context.wrap_socket(plain, server_hostname=NODE_NAME))
                tls.sendall(f"{FILE} {transfer_id}\n".encode())
                answer = _line(tls)
            except OSError as error:
                raise NodeError(f"{self.address} cannot be sent a file: {error}") from error
            if answer != OK or self._aborted:
                raise NodeError(f"{self.address} does not take the file {path}")
            tls.settimeout(None)
            buffer = memoryview(bytearray(CHUNK))
            while True:
                try:
                    count = file.readinto(buffer)
                except OSError as error:
                    raise LoadFailedError(f"unable to load model: {path} cannot be read: {error.strerror}") from error
                try:
                    if not count:
                        _line(tls)  # closing before the node has everything could lose the rest
                        return
                    tls.sendall(buffer[:count])
                except OSError:
                    return


def _line(tls: ssl.SSLSocket) -> bytes:
    """Return the line that the node sends."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_LINE and (data := tls.recv(LONGEST_LINE)):
        line += data
    return line


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
