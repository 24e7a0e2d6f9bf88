"""Fetching one part of a blob: a request for its range, writes as bytes arrive, and retries after failures."""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from puna.blocking import in_thread
from puna.errors import TransferError
from puna.models.registry.client import Client, chunks
from puna.models.registry.failures import RegistryError, StalledError, one_line
from puna.models.registry.limits import Limits
from puna.models.registry.partial import PartialBlob
from puna.models.registry.parts import Part
from puna.models.registry.retry import Tries

_GATHERED: Final = 1 << 20
"""Bytes that are written at once. Slow connections write fewer."""
_LOST: Final = (401, 403, 404, 410)
"""Statuses of a storage whose signed address has expired."""


class Source:
    """The address of a blob's bytes: the registry's own, or that of the storage to which it redirects."""

    def __init__(self, client: Client, digest: str, limits: Limits) -> None:
        self._client = client
        self._blob = client.repository.blob(digest)
        self._limits = limits
        self._asking = asyncio.Lock()
        self._found = ""

    async def url(self) -> str:
        """Return the address of the bytes. It is asked for once."""
        # All parts start at once. Only the first asks, and the others use its answer.
        async with self._asking:
            if not self._found:
                self._found = await self._ask()
            return self._found

    def forget(self, url: str) -> None:
        """Ask for the address again at the next use."""
        # Several parts may fail on one expired address. Only the first of them drops it; a newer address stays.
        if self._found == url:
            self._found = ""

    async def _ask(self) -> str:
        """Ask the registry. Transient errors are retried for a while, n² times 10 ms apart."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._limits.direct
        number = 0
        while True:
            try:
                return await self._answered()
            except RegistryError as error:
                number += 1
                wait = max(min(number**2 * 0.01, 10.0) * random.uniform(0.5, 1.5), error.wait)
                if not error.is_passing or loop.time() + wait > end:
                    raise
            await asyncio.sleep(wait)

    async def _answered(self) -> str:
        answer = await self._client.request(
            "GET",
            self._blob,
            # One byte, in case that the registry serves the blob itself and does not redirect.
            headers={"Range": "bytes=0-0"},
            seconds=self._limits.answer,
            # Redirects within the registry's host are followed. The first to another host is the storage, whose address
            # the parts then use.
            redirects=lambda old, new: urlsplit(old).hostname == urlsplit(new).hostname,
        )
        async with answer:
            location = answer.headers.get("Location", "")
            if location:
                return self._client.location(answer, location)
            return str(answer.url)

    async def open(self, url: str, first: int, last: int) -> aiohttp.ClientResponse:
        """Request a range of the bytes."""
        return await self._client.request("GET", url, headers={"Range": f"bytes={first}-{last}"})


async def fetch(
    source: Source,
    partial: PartialBlob,
    part: Callable[[], Part],
    limits: Limits,
    advance: Callable[[int, int], None],
) -> None:
    """Fetch the missing bytes of a part. `advance` is called with the number of the part and the bytes written.

    Raises TransferError if the disk fails, or after too many failed attempts.
    """
    tries = Tries(limits)
    while (before := part()).missing:
        url = ""
        try:
            url = await source.url()
            await _attempt(source, url, partial, before, limits, advance)
        except RegistryError as error:
            gained = part().completed - before.completed
            # A connection that stalls after it brought bytes is not a failure of the registry, so it does not count.
            if isinstance(error, StalledError) and gained >= limits.trickle:
                tries.reset()
                continue
            if error.status in _LOST:
                source.forget(url)
            if not await tries.another(error, gained):
                raise TransferError(f"max retries exceeded: {error}") from error


async def _attempt(
    source: Source,
    url: str,
    partial: PartialBlob,
    part: Part,
    limits: Limits,
    advance: Callable[[int, int], None],
) -> None:
    first, last = part.offset + part.completed, part.offset + part.size - 1
    loop = asyncio.get_running_loop()
    noted = 0
    try:
        async with asyncio.timeout(limits.stall) as patience:
            response = await source.open(url, first, last)
            async with response, _Gathering(partial, part, limits, advance) as gathering:
                skipped = _skipped(response, first)
                async with aclosing(chunks(response)) as body:
                    async for chunk in body:
                        deadline, before = patience.when(), loop.time()
                        patience.reschedule(None)  # the timeout is for the network and not for the disk
                        fresh, skipped = chunk[skipped:], max(skipped - len(chunk), 0)
                        if await gathering.add(fresh):
                            return
                        noted += len(chunk)
                        # A registry that sends a byte now and then would never time out. Only enough bytes renew the
                        # deadline.
                        if noted >= limits.trickle or deadline is None:
                            noted, deadline = 0, loop.time() + limits.stall
                        else:
                            deadline += loop.time() - before
                        patience.reschedule(deadline)
                await gathering.flush()
    except TimeoutError as error:
        raise StalledError from error
    # The part is complete only by the return above.
    raise RegistryError("unexpected EOF")


def _skipped(response: aiohttp.ClientResponse, first: int) -> int:
    """Return how many bytes of the answer precede the range, since some servers ignore ranges. Raises RegistryError."""
    if response.status == 206:
        content_range = response.headers.get("Content-Range", "")
        if content_range and not content_range.replace(" ", "").startswith(f"bytes{first}-"):
            raise RegistryError(f"the registry sent another range: {one_line(content_range)}")
        return 0
    if response.status == 200:
        return first
    raise RegistryError(f"unexpected status code {response.status}", status=response.status)


class _Gathering:
    """A buffer of received bytes. Leaving the context writes them, even after an error."""

    def __init__(self, partial: PartialBlob, part: Part, limits: Limits, advance: Callable[[int, int], None]) -> None:
        self._partial = partial
        self._part = part
        self._limits = limits
        self._advance = advance
        self._written = 0
        self._data = bytearray()
        self._flushed = asyncio.get_running_loop().time()

    async def __aenter__(self) -> "_Gathering":
        return self

    # Cancelling must not lose received bytes, so the write happens here and not in a thread that would have to be
    # awaited.
    async def __aexit__(self, *what: object) -> None:
        if self._data:
            self._write(bytes(self._data))

    async def add(self, chunk: bytes) -> bool:
        """Buffer bytes up to the end of the part. Return whether the part is complete and written."""
        # A server that ignores the end of the range sends more than the part. The rest belongs to another part.
        room = self._part.missing - self._written - len(self._data)
        self._data += chunk[:room]
        now = asyncio.get_running_loop().time()
        if len(self._data) >= _GATHERED or len(chunk) >= room or now - self._flushed >= self._limits.tick:
            self._flushed = now
            await self.flush()
        return self._written == self._part.missing

    async def flush(self) -> None:
        """Write the buffered bytes."""
        data, self._data = bytes(self._data), bytearray()
        if data:
            await in_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        self._partial.write(data, self._part.offset + self._part.completed + self._written)
        self._written += len(data)
        self._advance(self._part.number, len(data))
