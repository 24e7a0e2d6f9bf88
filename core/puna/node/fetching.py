"""Having the files of a model on a node: from its cache, from a folder that it shares with the core, or from the core.

Theory. First the files are held that are there and were verified before, which reads none of them. The others are the
work that the progress counts: a file at a shared path is read to verify it, and the rest is asked of the core, one file
after the other. A file that is not what its digest says is never used. At a shared path it is passed over, and in the
cache it is removed. From the core it is an error, unless its beginning was left by a transfer that broke off.

Two loads may need the same file, on this node or on another one that uses the same folder. The first of them receives
it, and the others wait for it. If the first one gives up, the next goes on where it ended.
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from puna.backend.v1 import node_pb2 as wire
from puna.blocking import in_thread, stoppable
from puna.models.storage import digest as digests
from puna.node.file_cache import FileCache, HeldFile, PartialFile
from puna.node.receiver import Receiver, TransferBrokenError
from puna.node.verified import hash_into

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.1
"""Pause between two looks at a file that another transfer brings."""
ATTEMPTS: Final = 3
"""Transfers in a row that may break off without a byte."""


class DamagedFileError(Exception):
    """The core's file has another digest than the core says."""


class Fetch:
    """The fetching of one model's files."""

    def __init__(
        self,
        cache: FileCache,
        shared: Sequence[Path],
        held: dict[str, HeldFile],
        receivers: dict[str, Receiver],
        want: Callable[[wire.FileWanted], None],
    ) -> None:
        """`shared` are folders of blobs that the node may share with the core. Files are added to `held` by digest.

        `receivers` has the transfers that wait for a connection of the core, by their ids; `want` asks the core.
        """
        self._cache = cache
        self._shared = shared
        self._held = held
        self._receivers = receivers
        self._want = want
        self.done = 0
        """Bytes that have arrived or were verified."""
        self.total = 0
        """Bytes to fetch or to verify."""

    async def run(self, files: Iterable[wire.ModelFile]) -> None:
        """Hold the files. Raises CacheFullError, DamagedFileError, TransferBrokenError, OSError."""
        # A node that shares a folder with its core needs no cache.
        with suppress(OSError):
            await in_thread(self._cache.prepare)
        # Two names of a model may have the same content.
        missing = {each.digest: each for each in files if each.digest not in self._held}
        for each in list(missing.values()):
            if self._hold(each, await in_thread(self._verified_before, each)):
                del missing[each.digest]
        self.total = sum(each.bytes for each in missing.values())
        for each in missing.values():
            before = self.done
            if not self._hold(each, await self._verify(each)):
                self.done = before
                self._hold(each, await self._from_core(each))
            self.done = before + each.bytes

    def _hold(self, file: wire.ModelFile, found: HeldFile | None) -> bool:
        """Keep a file that was found; return whether it was."""
        if found is not None:
            # Another model of the same host may have found it too.
            self._held.setdefault(file.digest, found)
            if self._held[file.digest] is not found:
                found.release()
        return found is not None

    def _verified_before(self, file: wire.ModelFile) -> HeldFile | None:
        name = digests.file_name(file.digest)
        if (held := self._cache.find(name)) is not None:
            if self._cache.verified.has(name, held.path):
                return held
            held.release()
            return None
        return next((HeldFile(each) for each in self._places(file) if self._cache.verified.has(name, each)), None)

    async def _verify(self, file: wire.ModelFile) -> HeldFile | None:
        """Read the files that may be the one; return the first whose digest is right."""
        name = digests.file_name(file.digest)
        if (held := await in_thread(self._cache.find, name)) is not None:
            if await self._is(file, held.path):
                return held
            log.error("%s is damaged and is fetched again", held.path)
            await in_thread(self._cache.remove, name)
            held.release()
        for each in self._places(file):
            if await in_thread(_size, each) == file.bytes:
                if await self._is(file, each):
                    return HeldFile(each)
                log.warning("%s has another content than on the core's machine and is not used", each)
        return None

    async def _is(self, file: wire.ModelFile, path: Path) -> bool:
        """Return whether a file has the digest, and record that."""
        hasher, before = hashlib.sha256(), self.done
        try:
            await stoppable(lambda stopped: hash_into(hasher, path, stopped, self._count))
        except OSError as error:
            log.warning("%s cannot be read: %s", path, error.strerror)
        if f"sha256:{hasher.hexdigest()}" != file.digest:
            self.done = before
            return False
        await in_thread(self._cache.verified.add, digests.file_name(file.digest), path)
        return True

    async def _from_core(self, file: wire.ModelFile) -> HeldFile:
        """Return a file that the core has sent, or that another transfer has brought meanwhile."""
        name, before, failures = digests.file_name(file.digest), self.done, 0
        while True:
            self.done = before
            partial = await in_thread(self._cache.receive, name, file.bytes)
            if partial is None:
                if (held := await self._from_others(file)) is not None:
                    return held
                continue
            present = partial.size
            try:
                await self._receive(file, partial)
                if f"sha256:{partial.digest()}" == file.digest:
                    held, partial = await in_thread(self._cache.complete, partial, name), None
                    return held
                await in_thread(partial.remove)
                if not present:
                    raise DamagedFileError(f"{file.path} is damaged: its content has another digest")
                log.warning("the rest of an interrupted transfer of %s is damaged", file.digest)
            except TransferBrokenError:
                assert partial is not None
                failures = 0 if partial.size > present else failures + 1
                if failures == ATTEMPTS:
                    raise
            finally:
                if partial is not None:
                    partial.close()

    async def _from_others(self, file: wire.ModelFile) -> HeldFile | None:
        """Wait while another transfer brings a file; return None if it has given up."""
        name, before = digests.file_name(file.digest), self.done
        while (present := await in_thread(self._cache.arriving, name, file.bytes)) is not None:
            self.done = before + present
            await asyncio.sleep(POLL_SECONDS)
        self.done = before
        held = await in_thread(self._cache.find, name)
        if held is None or await in_thread(self._cache.verified.has, name, held.path):
            return held
        held.release()
        return await self._verify(file)

    async def _receive(self, file: wire.ModelFile, partial: PartialFile) -> None:
        """Receive what a partial file lacks. Raises TransferBrokenError, and OSError after removing the file."""

        def write(chunks: list[memoryview]) -> None:
            partial.write(chunks)
            self._count(sum(map(len, chunks)))

        transfer_id = secrets.token_hex(8)
        try:
            await stoppable(lambda stopped: partial.read(stopped, self._count))
            if partial.size < file.bytes:
                receiver = Receiver(file.bytes - partial.size, write, partial.hash)
                self._receivers[transfer_id] = receiver
                self._want(wire.FileWanted(transfer_id=transfer_id, digest=file.digest, offset=partial.size))
                await receiver.run()
        except OSError:
            # A full disk is not left full, and what cannot be read is not kept.
            await in_thread(partial.remove)
            raise
        finally:
            self._receivers.pop(transfer_id, None)

    def _places(self, file: wire.ModelFile) -> list[Path]:
        """Return the paths at which a shared folder may have a file."""
        return [Path(file.path), *(each / digests.file_name(file.digest) for each in self._shared)]

    def _count(self, bytes_done: int) -> None:
        self.done += bytes_done


def _size(path: Path) -> int:
    """Return the size of a file; -1 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
