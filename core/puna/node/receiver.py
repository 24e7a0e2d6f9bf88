"""The node's end of a connection that brings a file from the core."""

import asyncio
from collections.abc import Callable
from typing import Final

from puna.blocking import in_thread
from puna.runtime.tunnel import OK

BUFFER: Final = 1 << 20
"""Bytes that are written at once."""
MOST_HELD: Final = 8 << 20
"""Bytes that may wait to be written before the connection is read no further."""


class TransferBrokenError(Exception):
    """The connection ended before the whole file had arrived."""


class Receiver(asyncio.BufferedProtocol):
    """Receives a known number of bytes. They are written and hashed in threads, while the next ones arrive.

    TLS decrypts into the buffers that are written, so the bytes are copied once.
    """

    def __init__(self, size: int, *takers: Callable[[list[memoryview]], None]) -> None:
        """`size` is the number of bytes that the core has to send; each of `takers` takes them, and blocks."""
        self._left = size
        self._takers = takers
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(BUFFER))
        self._filled = 0
        """Bytes of the buffer that have arrived and were not taken yet."""
        self._full: list[memoryview] = []
        self._spare: list[memoryview] = []
        """Buffers that were written. New ones cost page faults for each of their pages."""
        self._lost = False
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (as asyncio calls it)
        """Return where the next bytes belong."""
        return self._buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Keep bytes until they are written."""
        self._filled += nbytes
        if self._filled == BUFFER:
            self._full.append(self._buffer)
            self._next_buffer()
        self._news.set()
        if len(self._full) * BUFFER >= MOST_HELD and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (as asyncio calls it)
        """End the transfer after what has arrived."""
        self._lost = True
        self._news.set()

    async def run(self) -> None:
        """Write everything, and tell the core. Raises TransferBrokenError and what the takers raise."""
        try:
            while self._left:
                chunks, count = self._take()
                if count > self._left or (self._lost and not count):
                    raise TransferBrokenError
                if not count:
                    self._news.clear()
                    await self._news.wait()
                    continue
                if self._transport is not None and not self._lost:
                    self._transport.resume_reading()
                # Hashing a file takes as long as writing it.
                await asyncio.gather(*(in_thread(each, chunks) for each in self._takers))
                self._spare += [each for each in chunks if len(each) == BUFFER]
                self._left -= count
            if self._transport is not None:
                self._transport.write(OK)
                self._transport.close()
        finally:
            if self._left and self._transport is not None:
                self._transport.abort()

    def _take(self) -> tuple[list[memoryview], int]:
        """Return what has arrived, and how many bytes that is. A buffer that is not full is taken if it is the last."""
        chunks, self._full = self._full, []
        count = len(chunks) * BUFFER
        if self._filled and (self._lost or count + self._filled >= self._left):
            chunks.append(self._buffer[: self._filled])
            count += self._filled
            self._next_buffer()
        return chunks, count

    def _next_buffer(self) -> None:
        self._buffer, self._filled = self._spare.pop() if self._spare else memoryview(bytearray(BUFFER)), 0
