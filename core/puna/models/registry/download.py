"""One blob from a registry into the store: parts side by side, resumed where they stopped.

Its bytes get the blob's name only when its digest is right, so a kill at any moment leaves parts or the blob.
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
"""What storages answer whose signed addresses are for reading, and not for asking how long it would be."""


class Download(Transfer):
    """A blob on its way here."""

    def __init__(self, partial: PartialBlob, digest: str, size: int, connect: Connect, limits: Limits) -> None:
        """`size` is what the manifest says, 0 if it does not: then what the registry answers counts."""
        super().__init__(limits)
        self._partial = partial
        self._digest = digest
        self._size = size
        self._connect = connect
        self._parts: list[Part] = []

    @property
    def completed(self) -> int:
        """Bytes that are here."""
        return sum(part.completed for part in self._parts)

    async def _run(self) -> None:
        async with self._locked() as mine, self._connect() as client:
            if not mine:  # another process has brought the blob meanwhile
                self._prepared.set()
                self._arrived.set()
                return
            self._parts = list(await in_thread(self._partial.resume))
            if not self._parts:
                self._parts = list(parts_.plan(await self._asked_size(client), self._limits))
                await in_thread(self._partial.begin, self._parts)
            self.total = parts_.total(self._parts)
            await in_thread(self._partial.check_room, self.total - self.completed)
            self._prepared.set()
            await self._bring(client)
            self._arrived.set()
            await self._settle()

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncGenerator[bool]:
        """Hold the files of the blob; wait, and show how far it is, while another process does. False: it is there."""
        try:
            while not is_present(self._partial, self._size):
                if await in_thread(self._partial.lock):
                    # The one before may have been done just now.
                    yield not is_present(self._partial, self._size)
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
                if error.status in _GET_ONLY and self._size:
                    return self._size
                if isinstance(error, MissingError) or not error.is_passing:
                    raise
                if not await tries.another(error):
                    raise
                continue
            async with answer:
                told = number(answer.headers.get("Content-Length", ""))
                size = self._size if told is None else told
                if size > self._limits.model:
                    raise too_large(self._digest, size, self._limits)
                if self._size not in (0, size):
                    raise TransferError(
                        f"the registry says that {self._digest} has {size} bytes, and its manifest says {self._size}"
                    )
                return size

    async def _bring(self, client: Client) -> None:
        """Fetch what is missing. However it ends, what has come is noted."""
        source = Source(client, self._digest, self._limits)
        gate = asyncio.Semaphore(self._limits.parts)

        async def bring(index: int) -> None:
            async with gate:
                await fetch(source, self._partial, lambda: self._parts[index], self._limits, self._advance)

        try:
            async with asyncio.TaskGroup() as group:
                noting = group.create_task(self._noting())
                async with asyncio.TaskGroup() as bringing:
                    for part in self._parts:
                        if part.missing:
                            bringing.create_task(bring(part.number))
                noting.cancel()
        except BaseExceptionGroup as failed:
            raise first_failure(failed) from None
        finally:
            with contextlib.suppress(TransferError):  # what went wrong is told already
                self._partial.note(self._parts)

    def _advance(self, number: int, count: int) -> None:
        part = self._parts[number]
        self._parts[number] = replace(part, completed=part.completed + count)

    async def _noting(self) -> None:
        """Note now and then how far the parts are. What is noted is on the disk."""
        noted = list(self._parts)
        touch_if_present = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(self._limits.save)
            if asyncio.get_running_loop().time() - touch_if_present >= self._limits.keep:
                touch_if_present = asyncio.get_running_loop().time()
                await in_thread(self._partial.touch)
            now = list(self._parts)
            changed = [new for new, old in zip(now, noted, strict=True) if new != old]
            if changed:
                await in_thread(self._partial.sync)
                await in_thread(self._partial.note, changed)
                await in_thread(self._partial.check_room, 0)  # others write to the disk too
            noted = now

    async def _settle(self) -> None:
        found = await stoppable(self._partial.digest)
        if found != self._digest.lower().replace("-", ":", 1):
            await in_thread(self._partial.discard)
            raise TransferError(f"digest mismatch, file must be downloaded again: want {self._digest}, got {found}")
        await in_thread(self._partial.publish)


def too_large(digest: str, size: int, limits: Limits) -> TransferError:
    """Refuse a blob, or a whole model, for its size."""
    return TransferError(
        f"the registry says that {digest} has {size} bytes, of {limits.model} that it may have; "
        "PUNA_MAX_MODEL_BYTES changes the limit"
    )


def is_present(partial: PartialBlob, size: int) -> bool:
    """Whether the blob is there, as long as it should be. A shorter one is damaged, and is fetched again."""
    try:
        found = partial.final.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return False
    return size in (0, found)
