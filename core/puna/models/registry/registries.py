"""Pulling and pushing models: the order of steps and the status lines are Ollama's.

A pull fetches the manifest, checks it against the limits and the policy, takes shared locks on its blobs, fetches the
missing blobs one after the other, verifies the existing ones, and writes the manifest last. So the model appears as a
whole, and a failure leaves blobs that a later pull finds. A push sends the blobs first and the manifest last, for the
same reason.

Transfers are shared: of several requests for one blob of one registry the first starts the transfer, all show its
progress, and the last one to leave cancels it.
"""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Final

from puna.blocking import in_thread, retrieve_exception, stoppable
from puna.errors import InvalidDigestError, RegistryNotAllowedError, TransferError
from puna.model_name import ModelName
from puna.models.layout import manifest as manifests
from puna.models.layout import media_types
from puna.models.layout.manifest import Layer, Manifest
from puna.models.progress import JobPhase, TransferStep
from puna.models.registry.authorization import Authorization, Identity
from puna.models.registry.client import Client, connected
from puna.models.registry.download import Connect, Download, is_present, too_large
from puna.models.registry.failures import (
    MissingError,
    RegistryUnauthorizedError,
    RemoteModelNotFoundError,
    UnauthorizedError,
    of_system,
    system_text,
)
from puna.models.registry.limits import Limits
from puna.models.registry.partial import PartialBlob
from puna.models.registry.policy import Policy
from puna.models.registry.reach import Reach
from puna.models.registry.repository import Repository
from puna.models.registry.sharing import Shared
from puna.models.registry.upload import Blob, Upload, has_blob
from puna.models.storage.blobs import SharedLocks
from puna.models.storage.digest import file_name
from puna.models.storage.integrity import find_damage
from puna.models.store import ModelStore

log = logging.getLogger(__name__)

_TENSOR: Final = media_types.PREFIX + "tensor"
_NO_MLX: Final = "this model requires MLX support, but the MLX runtime is not available"
_SHORT: Final = slice(7, 19)
"""The part of a digest that status lines show: its first twelve digits."""


class Registries:
    """Pulls models into a store and pushes them from it. Requests for the same blob share one transfer."""

    def __init__(
        self,
        store: ModelStore,
        identity: Identity | None = None,
        limits: Limits | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._store = store
        self._policy = policy or Policy()
        self._identity = identity or Identity()
        self._limits = limits or Limits()
        self._downloads: Shared[tuple[str, str], Download] = Shared()
        """Downloads by registry and digest, so that a registry that stalls or fails does not affect another."""
        self._uploads: Shared[tuple[str, str], Upload] = Shared()

    async def pull(self, name: ModelName, *, insecure: bool) -> AsyncGenerator[TransferStep]:
        """Fetch a model, step by step. The name must be valid; it is not resolved.

        The model is not listed before it is complete. Closing the generator keeps the bytes that arrived for the next
        pull, and ends transfers that no other request waits for. Raises RegistryNotAllowedError before the first step,
        and TransferError for every failure of the registry, the network or the disk.
        """
        repository = self._repository(name, insecure=insecure)
        connect = self._connect(repository)
        yield TransferStep(JobPhase.READING_MANIFEST, "pulling manifest")
        data, manifest = await self._asked_manifest(name.tag, connect)
        layers = _layers(manifest, name)
        # Checked before anything is fetched, since a manifest may claim any size.
        _check_sizes(layers, self._limits)
        with self._store.blobs.hold_shared_locks() as shared_locks:
            async with AsyncExitStack() as stack:
                downloads: dict[str, Download] = {}
                # A pull may last for hours, and a server that starts meanwhile prunes unnamed blobs older than one.
                keeping = asyncio.create_task(self._keep(manifest))
                keeping.add_done_callback(retrieve_exception)
                stack.callback(keeping.cancel)
                for layer in layers:
                    if layer.digest not in downloads and (found := await self._damage(layer, shared_locks)):
                        log.warning("%s: it is fetched again", found)
                        yield TransferStep(JobPhase.REMOVING_BLOBS, f"removing damaged blob {layer.digest[_SHORT]}")
                        await in_thread(self._store.blobs.path(layer.digest).unlink, missing_ok=True)
                    download = downloads.get(layer.digest) or await self._joined(layer, repository, connect, stack)
                    # The blob is here, or the manifest names it twice. Either way a client sees it as complete.
                    if download is None or layer.digest in downloads:
                        size = download.total if download else self._store.blobs.size(layer.digest)
                        yield _step(JobPhase.DOWNLOADING, layer.digest, size, size)
                        continue
                    downloads[layer.digest] = download
                    async with aclosing(download.progress(at_least_once=False)) as ticks:
                        async for total, completed in ticks:
                            yield _step(JobPhase.DOWNLOADING, layer.digest, total, completed)
                # The hashes have been computed while later blobs arrived; only the last one is waited for.
                yield TransferStep(JobPhase.VERIFYING, "verifying sha256 digest")
                for download in downloads.values():
                    await download.finished()
                for digest in downloads:
                    await in_thread(self._store.blobs.mark_verified, digest)
            yield TransferStep(JobPhase.WRITING_MANIFEST, "writing manifest")
            # The bytes are written as they came: the digest of the model is that of these bytes.
            stale = await self._write(name, data, manifest)
            if stale and not self._store.no_prune:
                yield TransferStep(JobPhase.REMOVING_BLOBS, "removing unused layers")
                try:
                    await in_thread(self._store.remove_unused, stale)
                except OSError as error:
                    yield TransferStep(JobPhase.REMOVING_BLOBS, f"couldn't remove unused layers: {system_text(error)}")
        yield TransferStep(JobPhase.DONE, "success")

    async def _asked_manifest(self, tag: str, connect: Connect) -> tuple[bytes, Manifest]:
        try:
            async with connect() as client:
                data = await client.manifest(tag, {"Accept": media_types.MANIFEST})
            return data, await in_thread(_bounded_manifest, data, self._limits)
        except RecursionError:
            raise TransferError("pull model manifest: it is nested too deep") from None
        except MissingError as error:
            raise RemoteModelNotFoundError(f"pull model manifest: {error}") from error
        except UnauthorizedError as error:
            raise RegistryUnauthorizedError(f"pull model manifest: {error}") from error
        except (TransferError, ValueError) as error:
            raise TransferError(f"pull model manifest: {error}") from error

    async def _damage(self, layer: Layer, shared_locks: SharedLocks) -> str:
        """Lock a blob. Return a sentence that names its damage; empty if it is intact or missing."""
        await in_thread(shared_locks.add, layer.digest)
        if not await in_thread(os.path.lexists, self._store.blobs.path(layer.digest)):
            return ""
        blobs, size = self._store.blobs, layer.size
        try:
            return await stoppable(
                lambda stopped: find_damage(blobs, layer.digest, size, thorough=True, stopped=stopped)
            )
        except OSError as error:
            raise of_system(error, "read", blobs.path(layer.digest)) from error

    async def _joined(
        self, layer: Layer, repository: Repository, connect: Connect, stack: AsyncExitStack
    ) -> Download | None:
        """Join or start the download of a blob. Yield None if the blob exists."""
        partial_blob = PartialBlob(self._store.blobs.path(layer.digest))
        if await in_thread(is_present, partial_blob, layer.size):
            await in_thread(self._store.blobs.touch, layer.digest)
            return None
        make = partial(Download, partial_blob, layer.digest, layer.size, connect, self._limits)
        key = str(repository.origin), file_name(layer.digest)
        return await stack.enter_async_context(self._downloads.joined(key, make))

    async def _keep(self, manifest: Manifest) -> None:
        """Touch the existing blobs during the transfer, so that no other server prunes them."""
        while True:
            await asyncio.sleep(self._limits.keep)
            for digest in manifest.digests:
                with contextlib.suppress(OSError):
                    await in_thread(self._store.blobs.touch, digest)

    async def _write(self, name: ModelName, data: bytes, manifest: Manifest) -> frozenset[str]:
        """Write the manifest. Return the digests that the name no longer uses."""
        for digest in manifest.digests:
            path = self._store.blobs.path(digest)
            # Another server may have removed a blob despite the locks, since Ollama takes none.
            if not await in_thread(path.is_file):
                raise TransferError(f"open {path}: no such file or directory")
        try:
            before = await in_thread(self._store.manifests.replace, name, data)
        except OSError as error:
            raise of_system(error, "write", self._store.root.joinpath("manifests", *name.parts)) from error
        return before - manifest.digests

    async def push(self, name: ModelName, *, insecure: bool) -> AsyncGenerator[TransferStep]:
        """Send a model, step by step. Raises RegistryNotAllowedError, and TransferError for every failure."""
        self._check_allowed(name, insecure=insecure)
        yield TransferStep(JobPhase.READING_MANIFEST, "retrieving manifest")
        if not name.is_valid:
            # Ollama reports this step before the error, and clients show it.
            yield TransferStep(JobPhase.READING_MANIFEST, "couldn't retrieve manifest")
            raise TransferError(f"unqualified name: {name.full}")
        # A push accepts any spelling of a name in the store.
        name = await in_thread(self._store.resolve, name)
        path = self._store.root.joinpath("manifests", *name.parts)
        try:
            data, manifest = await in_thread(_read_manifest, path)
        except OSError as error:
            yield TransferStep(JobPhase.READING_MANIFEST, "couldn't retrieve manifest")
            raise of_system(error, "open", path) from error
        except ValueError as error:
            yield TransferStep(JobPhase.READING_MANIFEST, "couldn't retrieve manifest")
            raise TransferError(str(error)) from error
        repository = self._repository(name, insecure=insecure)
        connect = self._connect(repository)
        async with connect() as client:
            for layer in _layers(manifest, name, pushing=True):
                async with aclosing(self._sent(client, layer, connect)) as steps:
                    async for step in steps:
                        yield step
            yield TransferStep(JobPhase.WRITING_MANIFEST, "pushing manifest")
            headers = {"Content-Type": _media_type(data)}
            body = data.rstrip(b"\n")
            url, seconds = repository.manifest(name.tag), self._limits.answer
            (await client.request("PUT", url, headers=headers, body=lambda: body, seconds=seconds)).close()
        yield TransferStep(JobPhase.DONE, "success")

    async def _sent(self, client: Client, layer: Layer, connect: Connect) -> AsyncGenerator[TransferStep]:
        if await has_blob(client, layer.digest, self._limits):
            yield _step(JobPhase.UPLOADING, layer.digest, layer.size, layer.size)
            return
        source = ModelName.parse(layer.source) if layer.source else None
        blob = Blob(
            path=self._store.blobs.path(layer.digest),
            digest=layer.digest,
            source=f"{source.namespace}/{source.model}" if source is not None and source.is_valid else "",
        )
        key = client.repository.base, file_name(layer.digest)
        async with (
            self._uploads.joined(key, lambda: Upload(blob, connect, self._limits)) as upload,
            aclosing(upload.progress(at_least_once=True)) as ticks,
        ):
            async for total, completed in ticks:
                yield _step(JobPhase.UPLOADING, layer.digest, total, completed)
            await upload.finished()

    def _connect(self, repository: Repository) -> Connect:
        """Yield a client for a repository. Its authorization is shared by all connections of the operation."""
        reach = Reach(repository.origin, self._policy.peers)
        return partial(connected, repository, reach, Authorization(self._identity), self._limits)

    def _repository(self, name: ModelName, *, insecure: bool) -> Repository:
        """Return the repository of a model. Raises RegistryNotAllowedError, and TransferError if its host is
        invalid."""
        self._check_allowed(name, insecure=insecure)
        return Repository.of(name, insecure=insecure)

    def _check_allowed(self, name: ModelName, *, insecure: bool) -> None:
        try:
            origin = Repository.of(name, insecure=insecure).origin
        except ValueError:
            if name.is_valid:
                raise TransferError(f"{name.host} is no host of a registry") from None
            return  # an invalid name is refused later, with its own message
        if not self._policy.allows(origin):
            raise RegistryNotAllowedError(origin.netloc)


def _bounded_manifest(data: bytes, limits: Limits) -> Manifest:
    """Read a registry's manifest. Raises ValueError if it is invalid, TransferError if it is too long."""
    value = json.loads(data)
    layers = value.get("layers") if isinstance(value, dict) else None
    if isinstance(layers, list) and len(layers) > limits.layers:
        raise TransferError(
            f"it names {len(layers)} layers and may name {limits.layers}; PUNA_MAX_MANIFEST_LAYERS changes the limit"
        )
    return manifests.loads(data)


def _check_sizes(layers: list[Layer], limits: Limits) -> None:
    """Raise TransferError if a manifest has negative sizes, or more bytes than a model may have."""
    total = 0
    for layer in layers:
        if layer.size < 0:
            raise TransferError(f"the registry says that {layer.digest} has {layer.size} bytes")
        total += layer.size
        if total > limits.model:
            raise too_large(layer.digest if layer.size > limits.model else "the model", total, limits)


def _layers(manifest: Manifest, name: ModelName, *, pushing: bool = False) -> list[Layer]:
    """Return the layers to transfer, in order. Raises TransferError for a model that cannot be run."""
    found = [*manifest.layers, *([manifest.config] if manifest.config.digest else [])]
    # An index of images has `manifests` in place of `layers`.
    if not found:
        raise TransferError("pull model manifest: the registry has no model of that name, but an index of images")
    for layer in found:
        if not layer.digest:
            raise TransferError(f"{name.namespace}/{name.model}: digest is empty")
        if layer.media_type == _TENSOR and not pushing:
            raise TransferError(_NO_MLX)
        try:
            file_name(layer.digest)
        except InvalidDigestError as error:
            raise TransferError(str(error)) from error
    return found


def _step(phase: JobPhase, digest: str, total: int, completed: int) -> TransferStep:
    verb = "pulling" if phase is JobPhase.DOWNLOADING else "pushing"
    return TransferStep(phase, f"{verb} {digest[_SHORT]}", digest, total, completed)


def _read_manifest(path: Path) -> tuple[bytes, Manifest]:
    data = path.read_bytes()
    return data, manifests.loads(data)


def _media_type(data: bytes) -> str:
    value = json.loads(data).get("mediaType")
    return value if isinstance(value, str) and value else media_types.MANIFEST
