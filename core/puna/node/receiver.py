"""The node's end of a connection that brings a file from the core."""

import asyncio
from collections.abc import Callable
from typing import Final

from puna.blocking import in_thread
from puna.runtime.tunnel import OK

MOST_HELD: Final = 8 << 20
"""Bytes that may wait to be written before the connection is read no further."""


class TransferBrokenError(Exception):
    """The connection ended before the whole file had arrived."""


class Receiver(asyncio.Protocol):
    """Receives a known number of bytes. They are written in a thread, while the next ones arrive."""

    def __init__(self, size: int, write: Callable[[list[bytes]], None]) -> None:
        """`size` is the number of bytes that the core has to send; `write` takes them, and blocks."""
        self._left = size
        self._write = write
        self._transport: asyncio.Transport | None = None
        self._chunks: list[bytes] = []
        self._held = 0
        self._lost = False
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Keep data until it is written. More data than there should be ends the connection."""
        self._chunks.append(data)
        self._held += len(data)
        self._news.set()
        if self._held >= MOST_HELD and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (as asyncio calls it)
        """End the transfer after what has arrived."""
        self._lost = True
        self._news.set()

    async def run(self) -> None:
        """Write everything, and tell the core. Raises TransferBrokenError and what `write` raises."""
        try:
            while self._left:
                if not self._chunks:
                    if self._lost:
                        raise TransferBrokenError
                    self._news.clear()
                    await self._news.wait()
                    continue
                chunks, self._chunks, held, self._held = self._chunks, [], self._held, 0
                if held > self._left:
                    raise TransferBrokenError
                if self._transport is not None and not self._lost:
                    self._transport.resume_reading()
                await in_thread(self._write, chunks)
                self._left -= held
            if self._transport is not None:
                self._transport.write(OK)
                self._transport.close()
        finally:
            if self._left and self._transport is not None:
                self._transport.abort()
