"""Uploading one blob to a registry: mounted from another repository there, or sent in parts.

An upload passes these stages. `HEAD` asks whether the registry has the blob. `POST` opens a session, or mounts the
blob from the repository that it was pulled from (201), which ends the upload. Each part is sent by `PATCH` to the
session, whose answer gives the address for the next part, so parts go one after the other. A registry may instead
answer with the address of a storage; then up to 16 parts go there at once by `PUT`. A final `PUT` with the digest
commits the session.

After a failure the session is asked how many bytes it has. A registry that has forgotten the session makes the
upload start again.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import aiohttp

from puna.blocking import in_thread
from puna.models.registry import parts as parts_
from puna.models.registry.client import Client, number
from puna.models.registry.download import Connect
from puna.models.registry.failures import MissingError, RegistryError, StalledError, of_system
from puna.models.registry.limits import Limits
from puna.models.registry.parts import Part
from puna.models.registry.retry import Tries
from puna.models.registry.transfer import Transfer
from puna.models.registry.waiting import first_failure

log = logging.getLogger(__name__)

_CHUNK: Final = 1 << 18
_REDIRECTED: Final = 307


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """The blob to send."""

    path: Path
    digest: str
    source: str = ""
    """namespace/model on the registry that may have the blob already."""


class _SessionLostError(RegistryError):
    """The registry has forgotten the session: the upload starts again."""


class Upload(Transfer):
    """The upload of one blob."""

    def __init__(self, blob: Blob, connect: Connect, limits: Limits) -> None:
        super().__init__(limits)
        self._blob = blob
        self._connect = connect
        self._sent: dict[int, int] = {}
        """Bytes that were sent, by number of the part."""

    @property
    def completed(self) -> int:
        """Bytes that were sent."""
        return sum(self._sent.values())

    async def _run(self) -> None:
        try:
            self.total = (await in_thread(self._blob.path.stat)).st_size
            await self._upload()
        except OSError as error:  # an error of the file; those of connections are RegistryErrors
            raise of_system(error, "open", self._blob.path) from error

    async def _upload(self) -> None:
        async with self._connect() as client:
            url = await self._begin(client, self._blob.source)
            self._prepared.set()
            if not url:
                self._sent = {0: self.total}
                return
            tries = Tries(self._limits)
            while True:
                try:
                    await self._send(client, url)
                    return
                except _SessionLostError as error:
                    if not await tries.another(error):
                        raise RegistryError(f"max retries exceeded: {error}") from error
                    self._sent.clear()
                    # Without a source: if the registry had mounted the blob, there would be no session to lose.
                    url = await self._begin(client, "")

    async def _begin(self, client: Client, source: str) -> str:
        """Open an upload session and return its address; empty if the blob was mounted."""
        url = client.repository.uploads(self._blob.digest, source)
        answer = await client.request("POST", url, body=lambda: b"", seconds=self._limits.answer)
        async with answer:
            if answer.status == 201:
                return ""
            found = _session(client, answer, "")
        if not found:
            raise RegistryError("http: no Location header in response")
        return found

    async def _send(self, client: Client, url: str) -> None:
        """Send all parts and commit them. If the registry names a storage, up to 16 parts are sent at once."""
        gate = asyncio.Semaphore(self._limits.parts)
        sums: dict[int, bytes] = {}

        async def store(part: Part, target: str) -> None:
            async with gate:
                await self._store(client, part, target)

        try:
            async with asyncio.TaskGroup() as group:
                for part in parts_.plan(self.total, self._limits):
                    async with gate:
                        url, target = await self._patch(client, url, part)
                    if target:
                        group.create_task(store(part, target))
                    # For the etag of a multipart upload as S3 computes it: the MD5 sum of the parts' MD5 sums.
                    sums[part.number] = await in_thread(_md5, self._blob.path, part)
        except BaseExceptionGroup as failed:
            raise first_failure(failed) from None
        etag = hashlib.md5(b"".join(sums.values()), usedforsecurity=False).hexdigest()
        separator = "&" if "?" in url else "?"
        query = urlencode({"digest": self._blob.digest, "etag": f"{etag}-{len(sums)}"})
        await self._commit(client, url + separator + query)

    async def _patch(self, client: Client, url: str, part: Part) -> tuple[str, str]:
        """Send a part. Return the session's next address, and the storage's address if the part must go there."""
        tries = Tries(self._limits)
        start = part.offset
        while True:
            last = part.offset + part.size - 1
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(last + 1 - start),
                "Content-Range": f"{start}-{last}",
                "X-Redirect-Uploads": "1",
            }
            try:
                answer = await self._deliver(client, "PATCH", url, headers, part, start)
                async with answer:
                    if answer.status == _REDIRECTED:
                        self._sent[part.number] = 0
                        target = client.location(answer, answer.headers.get("Location", ""))
                        session = answer.headers.get("Docker-Upload-Location")
                        return client.location(answer, session) if session else url, target
                    return _session(client, answer, url), ""
            except RegistryError as error:
                # The counter goes back, so that the progress shows what the registry has.
                self._sent[part.number] = start - part.offset
                if isinstance(error, MissingError):
                    raise _SessionLostError(str(error)) from error
                if not await tries.another(error):
                    raise RegistryError(f"max retries exceeded: {error}") from error
                url, start = await self._where(client, url, part)
                self._sent[part.number] = start - part.offset

    async def _where(self, client: Client, url: str, part: Part) -> tuple[str, int]:
        """Ask how many bytes the registry has. Return the session's address and the offset to continue from."""
        try:
            answer = await client.request("GET", url, seconds=self._limits.answer)
        except RegistryError as error:
            if error.status and not error.is_passing:
                raise _SessionLostError(str(error)) from error
            return url, part.offset
        async with answer:
            last = answer.headers.get("Range", "").rpartition("-")[2]
            # Registries answer "0-0" for no byte as well as for one byte.
            received = number(last)
            start = received + 1 if received else part.offset
            if not part.offset <= start < part.offset + part.size:
                raise _SessionLostError("the upload is not where it was left")
            return _session(client, answer, url), start

    async def _store(self, client: Client, part: Part, url: str) -> None:
        """Send a part to the storage that the registry has named."""
        tries = Tries(self._limits)
        headers = {"Content-Length": str(part.size)}
        while True:
            try:
                (await self._deliver(client, "PUT", url, headers, part, part.offset)).close()
                return
            except RegistryError as error:
                self._sent[part.number] = 0
                if not await tries.another(error):
                    raise RegistryError(f"max retries exceeded: {error}") from error

    async def _deliver(
        self, client: Client, method: str, url: str, headers: Mapping[str, str], part: Part, start: int
    ) -> aiohttp.ClientResponse:
        """Send bytes from `start` to the part's end. Raises StalledError if the registry accepts none for too long."""
        loop = asyncio.get_running_loop()
        answered = False

        async def body(patience: asyncio.Timeout) -> AsyncGenerator[bytes]:
            self._sent[part.number] = start - part.offset
            offset, end = start, part.offset + part.size
            with self._blob.path.open("rb") as file:
                file.seek(offset)
                # aiohttp may go on reading the body after the answer has come, for instance a refusal. Then nothing
                # more is sent or counted.
                while offset < end and not answered:
                    patience.reschedule(loop.time() + self._limits.stall)
                    chunk = await in_thread(file.read, min(_CHUNK, end - offset))
                    if not chunk:
                        raise RegistryError(f"{self._blob.path} has become shorter")
                    yield chunk
                    offset += len(chunk)
                    if not answered:
                        self._sent[part.number] += len(chunk)
            if not answered:
                patience.reschedule(loop.time() + self._limits.answer)

        try:
            async with asyncio.timeout(self._limits.stall) as patience:
                # No redirect is followed: the body would go again to another address. The answer itself may name the
                # storage.
                return await client.request(
                    method, url, headers=headers, body=lambda: body(patience), redirects=lambda _old, _new: False
                )
        except TimeoutError as error:
            raise StalledError from error
        finally:
            answered = True

    async def _commit(self, client: Client, url: str) -> None:
        tries = Tries(self._limits)
        while True:
            try:
                seconds = self._limits.commit
                headers = {"Content-Length": "0"}
                (await client.request("PUT", url, headers=headers, body=lambda: b"", seconds=seconds)).close()
                return
            except RegistryError as error:
                if await self._is_there(client):  # the commit succeeded and only its answer was lost
                    return
                if isinstance(error, MissingError):
                    raise _SessionLostError(str(error)) from error
                if not error.is_passing:
                    raise
                if not await tries.another(error):
                    raise RegistryError(f"max retries exceeded: {error}") from error

    async def _is_there(self, client: Client) -> bool:
        try:
            return await has_blob(client, self._blob.digest, self._limits)
        except RegistryError:
            return False


async def has_blob(client: Client, digest: str, limits: Limits) -> bool:
    """Return whether the registry has a blob. Raises RegistryError if it does not say."""
    try:
        (await client.request("HEAD", client.repository.blob(digest), seconds=limits.answer)).close()
    except MissingError:
        return False
    return True


def _session(client: Client, answer: aiohttp.ClientResponse, default: str) -> str:
    location = answer.headers.get("Docker-Upload-Location") or answer.headers.get("Location", "")
    return client.location(answer, location) if location else default


def _md5(path: Path, part: Part) -> bytes:
    found = hashlib.md5(usedforsecurity=False)
    left = part.size
    with path.open("rb") as file:
        file.seek(part.offset)
        while left and (chunk := file.read(min(left, 1 << 20))):
            found.update(chunk)
            left -= len(chunk)
    return found.digest()
