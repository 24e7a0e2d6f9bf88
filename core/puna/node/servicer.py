"""The service of a node: starts and ends hosts for the core that holds the lease."""

import asyncio
import errno
import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from puna.backend import ModelSpec
from puna.backend.v1 import node_pb2 as wire
from puna.backend.v1 import node_pb2_grpc
from puna.errors import BackendNotFoundError, LoadFailedError
from puna.models.storage.digest import is_digest
from puna.node.fetching import DamagedFileError, Fetch
from puna.node.file_cache import CacheFullError, FileCache
from puna.node.lease import Lease, LeaseHeldError, LeaseHolder, NodeHost
from puna.node.receiver import Receiver, TransferBrokenError
from puna.plugins import Registry
from puna.runtime import memory, model_folders
from puna.runtime.errors import HostFailedError, HostKilledError
from puna.runtime.host_process import KILLED, HostProcess

log = logging.getLogger(__name__)

OUTPUT_SECONDS: Final = 0.2
"""Least pause between two messages about a host's output."""
PROGRESS_SECONDS: Final = 0.25
"""Pause between two messages about the progress of fetching files."""


class NodeServicer(node_pb2_grpc.NodeServiceServicer):
    """Serves the core that holds the lease. The streaming method is a coroutine, as in `puna.host.servicer`."""

    def __init__(
        self,
        backends: Registry,
        lease: LeaseHolder,
        next_socket: Callable[[], Path],
        cache: FileCache,
        shared: Sequence[Path],
    ) -> None:
        """`next_socket` returns a new path for each host; `shared` are folders of blobs that cores may share."""
        self._backends = backends
        self._cache = cache
        self._shared = shared
        self._receivers: dict[str, Receiver] = {}
        self._lease = lease
        self._next_socket = next_socket
        self._sockets: dict[str, Path] = {}

    def socket(self, host_id: str) -> Path | None:
        """Return the gRPC socket of a host; None if there is no such host."""
        return self._sockets.get(host_id)

    def receiver(self, transfer_id: str) -> Receiver | None:
        """Return what takes a file that the node wants; None if it wants none of this id. Each is taken once."""
        return self._receivers.pop(transfer_id, None)

    async def RenewLease(  # noqa: N802 (the RPC's name)
        self,
        request: wire.RenewLeaseRequest,
        context: "grpc.aio.ServicerContext[wire.RenewLeaseRequest, wire.RenewLeaseResponse]",
    ) -> wire.RenewLeaseResponse:
        """Take or renew the lease."""
        try:
            await self._lease.renew(request.lease_id, request.core_id, request.core_name)
        except LeaseHeldError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return wire.RenewLeaseResponse(seconds=self._lease.seconds, free_memory_bytes=memory.free_bytes())

    async def ReleaseLease(  # noqa: N802
        self,
        request: wire.ReleaseLeaseRequest,
        context: "grpc.aio.ServicerContext[wire.ReleaseLeaseRequest, wire.ReleaseLeaseResponse]",  # noqa: ARG002
    ) -> wire.ReleaseLeaseResponse:
        """End the lease."""
        await self._lease.release(request.lease_id)
        return wire.ReleaseLeaseResponse()

    async def StartHost(  # type: ignore[override]  # noqa: N802
        self,
        request: wire.StartHostRequest,
        context: "grpc.aio.ServicerContext[wire.StartHostRequest, wire.StartHostResponse]",
    ) -> None:
        """Start a host, and tell of its life until it ends. A cancelled call ends it."""
        lease = await self._held(request.lease_id, context)
        await asyncio.to_thread(self._backends.refresh)
        socket = self._next_socket()
        try:
            backend = self._backends.get(request.backend)
            process = await HostProcess.start(backend, socket, request.ready_seconds, request.label)
        except BackendNotFoundError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except HostFailedError as error:
            if isinstance(error, HostKilledError):
                ended = wire.HostEnded(status=KILLED, explanation=str(error))
                await context.write(wire.StartHostResponse(ended=ended))
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        host, host_id = NodeHost(process, socket), secrets.token_hex(8)
        try:
            # The lease may have ended while the host started.
            await self._held(request.lease_id, context)
            lease.hosts[host_id] = host
            self._sockets[host_id] = socket
            log.info("%s runs %s for %s", process.title, request.backend, request.label)
            started = wire.HostStarted(host_id=host_id, process_id=process.pid)
            await context.write(wire.StartHostResponse(started=started))
            await _tell(process, context)
        finally:
            self._sockets.pop(host_id, None)
            lease.hosts.pop(host_id, None)
            await host.end()

    async def StopHost(  # noqa: N802
        self,
        request: wire.StopHostRequest,
        context: "grpc.aio.ServicerContext[wire.StopHostRequest, wire.StopHostResponse]",
    ) -> wire.StopHostResponse:
        """End a host."""
        lease = await self._held(request.lease_id, context)
        if (host := lease.hosts.get(request.host_id)) is not None:
            if request.kill:
                host.process.kill()
            await host.process.stop()
        return wire.StopHostResponse()

    async def FetchFiles(  # type: ignore[override]  # noqa: N802
        self,
        request: wire.FetchFilesRequest,
        context: "grpc.aio.ServicerContext[wire.FetchFilesRequest, wire.FetchFilesResponse]",
    ) -> None:
        """Have the files of a model here, and tell how far that is."""
        lease = await self._held(request.lease_id, context)
        host = await _host(lease, request.host_id, context)
        if not all(is_digest(each.digest) and each.bytes >= 0 for each in request.files):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a file has no digest")
        wanted: asyncio.Queue[wire.FileWanted] = asyncio.Queue()
        fetch = Fetch(self._cache, self._shared, host.files, self._receivers, wanted.put_nowait)
        task = asyncio.create_task(fetch.run(request.files))
        host.fetching.add(task)
        try:
            await _tell_progress(fetch, task, wanted, context)
        finally:
            task.cancel()
            await asyncio.wait({task})
            host.fetching.discard(task)
        code, text = _failure(task)
        if code is not grpc.StatusCode.OK:
            await context.abort(code, text)

    async def PlaceFiles(  # noqa: N802
        self,
        request: wire.PlaceFilesRequest,
        context: "grpc.aio.ServicerContext[wire.PlaceFilesRequest, wire.PlaceFilesResponse]",
    ) -> wire.PlaceFilesResponse:
        """Check the files of a model, and make a folder of those that have names."""
        lease = await self._held(request.lease_id, context)
        host = await _host(lease, request.host_id, context)
        paths = [_path(each, host) for each in request.files]
        named = {each.name: path for each, path in zip(request.files, paths, strict=True) if each.name}
        folder = str(self._next_socket().with_suffix(".files")) if named else ""
        if folder:
            host.folders.append(folder)
        try:
            await asyncio.to_thread(_place, [each for each in request.files if not each.digest], named, folder)
        except LoadFailedError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return wire.PlaceFilesResponse(folder=folder, free_memory_bytes=memory.free_bytes(), paths=paths)

    async def _held(self, lease_id: str, context: "grpc.aio.ServicerContext[Any, Any]") -> Lease:
        lease = self._lease.held(lease_id)
        if lease is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the core does not hold the node's lease any more")
        return lease


async def _host(lease: Lease, host_id: str, context: "grpc.aio.ServicerContext[Any, Any]") -> NodeHost:
    host = lease.hosts.get(host_id)
    if host is None:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the host has ended")
    return host


async def _tell_progress(
    fetch: Fetch,
    task: "asyncio.Task[None]",
    wanted: "asyncio.Queue[wire.FileWanted]",
    context: "grpc.aio.ServicerContext[wire.FetchFilesRequest, wire.FetchFilesResponse]",
) -> None:
    """Write what a fetch wants and how far it is, until it ends."""
    told = (0, 0)
    while not task.done():
        next_wanted = asyncio.ensure_future(wanted.get())
        await asyncio.wait({task, next_wanted}, timeout=PROGRESS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if next_wanted.done():
            await context.write(wire.FetchFilesResponse(wanted=next_wanted.result()))
        next_wanted.cancel()
        if told != (fetch.done, fetch.total):
            told = (fetch.done, fetch.total)
            progress = wire.FetchProgress(done_bytes=fetch.done, total_bytes=fetch.total)
            await context.write(wire.FetchFilesResponse(progress=progress))


def _failure(task: "asyncio.Task[None]") -> tuple[grpc.StatusCode, str]:
    """Return the status of a fetch that has ended."""
    if task.cancelled():
        return grpc.StatusCode.FAILED_PRECONDITION, "the host has ended"
    match task.exception():
        case None:
            return grpc.StatusCode.OK, ""
        case CacheFullError() as error:
            return grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
        case DamagedFileError() as error:
            return grpc.StatusCode.DATA_LOSS, str(error)
        case TransferBrokenError():
            return (
                grpc.StatusCode.FAILED_PRECONDITION,
                "the connection that brings a file of the model broke several times",
            )
        case OSError() as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if is_full else grpc.StatusCode.FAILED_PRECONDITION
            return code, f"a file of the model cannot be kept: {error}"
        case error:
            raise error


def _path(file: wire.ModelFile, host: NodeHost) -> str:
    """Return where a file is on this machine."""
    held = host.files.get(file.digest)
    return str(held.path) if held is not None else file.path


async def _tell(
    process: HostProcess, context: "grpc.aio.ServicerContext[wire.StartHostRequest, wire.StartHostResponse]"
) -> None:
    """Write messages about a host's output until it ends, then how it ended."""
    written, progress = asyncio.Event(), None

    def note(fraction: float) -> None:
        nonlocal progress
        progress = fraction

    process.on_output, process.on_progress = written.set, note
    ended = asyncio.create_task(process.died(within=float("inf")))
    try:
        while not ended.done():
            waiting = asyncio.create_task(written.wait())
            await asyncio.wait({ended, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if written.is_set() and not ended.done():
                written.clear()
                output = wire.HostOutput(last_line=process.last_line, progress=progress)
                await context.write(wire.StartHostResponse(output=output))
                # A host may write without end.
                await asyncio.wait({ended}, timeout=OUTPUT_SECONDS)
    finally:
        ended.cancel()
    how = wire.HostEnded(status=process.status, explanation=process.explain(), output=process.last_output)
    await context.write(wire.StartHostResponse(ended=how))


def _place(files: list[wire.ModelFile], named: dict[str, str], folder: str) -> None:
    """Check files, and make the folder of those that have names. Raises LoadFailedError."""
    for each in files:
        try:
            size = Path(each.path).stat().st_size
        except OSError as error:
            text = f"the file {each.path} cannot be read ({error.strerror}); share the folder of models under this path"
            raise LoadFailedError(text) from error
        if size != each.bytes:
            raise LoadFailedError(f"the file {each.path} has {size} bytes here, and {each.bytes} on the core's machine")
    if folder:
        model_folders.place(ModelSpec(path="", files=named), Path(folder))
