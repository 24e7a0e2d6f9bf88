"""Downloading one blob into the store, in parallel parts that are resumed where they stopped.

A download passes these stages:

1. Open: lock `-partial`. While another process holds the lock, show its progress and try again.
2. Prepare: read the notes of an earlier attempt, or ask for the size and divide the blob into parts.
3. Fetch: several parts at a time write their ranges into the one file. Every two seconds the file is flushed to the
   disk and then the notes are written, so that a note never claims bytes that a crash could lose.
4. Settle: hash the whole file. With the right digest it is renamed to the blob, otherwise everything is removed.

A kill at any moment therefore leaves either parts that can be resumed or the complete blob. Cancelling stops the
parts, writes the notes and keeps what has arrived.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, TypeAlias

from puna.blocking import in_thread, stoppable
from puna.errors import TransferError
from puna.models.registry import parts as parts_
from puna.models.registry.client import Client, number
from puna.models.registry.failures import MissingError, RegistryError
from puna.models.registry.fetch import Source, fetch
from puna.models.registry.limits import Limits
from puna.models.registry.partial import PartialBlob
from puna.models.registry.parts import Part
from puna.models.registry.retry import Tries
from puna.models.registry.transfer import Transfer
from puna.models.registry.waiting import first_failure

log = logging.getLogger(__name__)

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Client]]

_SIZE_TRIES: Final = 3
_GET_ONLY: Final = (403, 405)
"""Statuses of a storage whose signed addresses allow GET and not HEAD. The size is then taken from a GET."""


class Download(Transfer):
    """The download of one blob."""

    def __init__(self, partial: PartialBlob, digest: str, size: int, connect: Connect, limits: Limits) -> None:
        """`size` is the size in the manifest. If that is 0, the size in the registry's answer counts."""
        super().__init__(limits)
        self._partial = partial
        self._digest = digest
        self._size = size
        self._connect = connect
        self._parts: list[Part] = []

    @property
    def completed(self) -> int:
        """Bytes that have arrived."""
        return sum(part.completed for part in self._parts)

    async def _run(self) -> None:
        async with self._locked() as mine, self._connect() as client:
            if not mine:  # another process has completed the blob
                self._prepared.set()
                self._arrived.set()
                return
            self._parts = list(await in_thread(self._partial.resume))
            if not self._parts:
                self._parts = list(parts_.plan(await self._asked_size(client), self._limits))
                await in_thread(self._partial.begin, self._parts)
            self.total = parts_.total(self._parts)
            # A full disk is noticed before the first byte, not after an hour.
            await in_thread(self._partial.check_room, self.total - self.completed)
            self._prepared.set()
            await self._bring(client)
            self._arrived.set()
            await self._settle()

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncGenerator[bool]:
        """Lock the files of the blob. While another process holds them, show its progress. Return False if the blob
        exists."""
        try:
            while not is_present(self._partial, self._size):
                if await in_thread(self._partial.lock):
                    # The previous holder may just have completed the blob. Then the lock has made an empty file.
                    if present := is_present(self._partial, self._size):
                        await in_thread(self._partial.discard)
                    yield not present
                    return
                self._parts = list(await in_thread(self._partial.parts))
                self.total = parts_.total(self._parts)
                if self.total:
                    self._prepared.set()
                await asyncio.sleep(self._limits.poll)
            yield False
        finally:
            self._partial.close()

    async def _asked_size(self, client: Client) -> int:
        tries = Tries(replace(self._limits, tries=_SIZE_TRIES))
        url = client.repository.blob(self._digest)
        while True:
            try:
                answer = await client.request("HEAD", url, seconds=self._limits.answer)
            except RegistryError as error:
                # The manifest's size is trusted here; a wrong one shows in the digest.
                if error.status in _GET_ONLY and self._size:
                    return self._size
                if isinstance(error, MissingError) or not error.is_passing:
                    raise
                if not await tries.another(error):
                    raise
                continue
            async with answer:
                length = number(answer.headers.get("Content-Length", ""))
                size = self._size if length is None else length
                if size > self._limits.model:
                    raise too_large(self._digest, size, self._limits)
                if self._size not in (0, size):
                    raise TransferError(
                        f"the registry says that {self._digest} has {size} bytes, and its manifest says {self._size}"
                    )
                return size

    async def _bring(self, client: Client) -> None:
        """Fetch the missing bytes. The notes are written however it ends."""
        source = Source(client, self._digest, self._limits)
        gate = asyncio.Semaphore(self._limits.parts)

        async def bring(index: int) -> None:
            async with gate:
                await fetch(source, self._partial, lambda: self._parts[index], self._limits, self._advance)

        try:
            async with asyncio.TaskGroup() as group:
                # The notes have a task in the outer group, so that a failed write of notes ends the transfer, and the
                # end of the parts ends the notes.
                noting = group.create_task(self._noting())
                async with asyncio.TaskGroup() as bringing:
                    for part in self._parts:
                        if part.missing:
                            bringing.create_task(bring(part.number))
                noting.cancel()
        except BaseExceptionGroup as failed:
            raise first_failure(failed) from None
        finally:
            with contextlib.suppress(TransferError):  # the first error is already raised
                self._partial.note(self._parts)

    def _advance(self, number: int, count: int) -> None:
        part = self._parts[number]
        self._parts[number] = replace(part, completed=part.completed + count)

    async def _noting(self) -> None:
        """Write the notes at intervals, each time after flushing the bytes that they count."""
        noted = list(self._parts)
        touched = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(self._limits.save)
            if asyncio.get_running_loop().time() - touched >= self._limits.keep:
                touched = asyncio.get_running_loop().time()
                await in_thread(self._partial.touch)
            # A copy before the flush: bytes that arrive during the flush must not be noted as flushed.
            now = list(self._parts)
            changed = [new for new, old in zip(now, noted, strict=True) if new != old]
            if changed:
                await in_thread(self._partial.sync)
                await in_thread(self._partial.note, changed)
                await in_thread(self._partial.check_room, 0)  # other programs fill the disk too
            noted = now

    async def _settle(self) -> None:
        found = await stoppable(self._partial.digest)
        # The digest decides, whatever the registry and the notes said.
        if found != self._digest.lower().replace("-", ":", 1):
            await in_thread(self._partial.discard)
            raise TransferError(f"digest mismatch, file must be downloaded again: want {self._digest}, got {found}")
        await in_thread(self._partial.publish)


def too_large(digest: str, size: int, limits: Limits) -> TransferError:
    """Return the error for a blob or a model that is larger than the limits allow."""
    return TransferError(
        f"the registry says that {digest} has {size} bytes, of {limits.model} that it may have; "
        "PUNA_MAX_MODEL_BYTES changes the limit"
    )


def is_present(partial: PartialBlob, size: int) -> bool:
    """Return whether the blob exists with the right size. A blob of another size is damaged, and is fetched again."""
    try:
        found = partial.final.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return False
    return size in (0, found)
