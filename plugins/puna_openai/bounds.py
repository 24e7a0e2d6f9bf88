"""Bounds on what an upstream may send.

The package that reads the answers gathers lines and bodies of any length in memory. One host serves the models of all
upstreams, so an upstream that sends a line without an end would take the others with it. This module counts the bytes
as they arrive, before anything gathers them.
"""

from collections.abc import AsyncIterator
from typing import Final

import httpx2

EVENT_STREAM: Final = "text/event-stream"
MOST_ERROR_BYTES: Final = 1 << 20
"""Bytes of an answer with an error status."""


class TooLargeError(Exception):
    """The upstream sent more than it may."""


class BoundedStream(httpx2.AsyncByteStream):
    """A body that ends with TooLargeError when it exceeds its bound."""

    def __init__(self, stream: httpx2.AsyncByteStream, *, most: int, by_event: bool) -> None:
        """`most` bounds each event of a stream if `by_event`, and otherwise the whole body, in bytes."""
        self._stream = stream
        self._most = most
        self._by_event = by_event

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for piece in self._stream:
            # The events of chat completions have one line each. Lines within a piece are short, since a piece is what
            # one read of the socket returned.
            first = piece.find(b"\n") if self._by_event else -1
            longest = count + (len(piece) if first < 0 else first)
            count = longest if first < 0 else len(piece) - piece.rfind(b"\n") - 1
            if max(longest, count) > self._most:
                raise TooLargeError(f"more than {self._most} bytes at once")
            yield piece

    async def aclose(self) -> None:
        """Close the connection, or give it back if the body was read to its end."""
        await self._stream.aclose()


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """A transport whose answers are bounded."""

    def __init__(self, max_event_bytes: int, max_response_bytes: int) -> None:
        super().__init__()
        self._max_event_bytes = max_event_bytes
        self._max_response_bytes = max_response_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        response = await super().handle_async_request(request)
        # The bound counts what arrives, so an answer that grows when it is unpacked would pass it.
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise TooLargeError("a compressed answer, which was not asked for")
        by_event = response.headers.get("content-type", "").startswith(EVENT_STREAM)
        most = self._max_event_bytes if by_event else self._max_response_bytes
        if response.is_error:
            most = min(most, MOST_ERROR_BYTES)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = BoundedStream(response.stream, most=most, by_event=by_event)
        return response
