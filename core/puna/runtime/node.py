"""A node: another machine that runs hosts for this core.

Theory. The core holds the node's lease, which it renews every RENEW_SECONDS. One lease is one `_Link`: its tunnels,
its channel and its hosts. A node that leaves a renewal unanswered for PUNA_MAX_NODE_SILENCE_SECONDS counts as gone.
The link is then lost as a whole: its hosts count as ended and its connections are aborted, so every request fails at
once and says why. The node ends the same hosts when the lease runs out. The next model opens another link, whose lease
replaces the old one on a node that was only out of reach.
"""

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias
from uuid import uuid4

import grpc
import grpc.aio

from puna import events
from puna.backend import ModelSpec
from puna.backend.v1 import node_pb2 as wire
from puna.backend.v1 import node_pb2_grpc
from puna.errors import LoadFailedError
from puna.host.channel import OPTIONS
from puna.host.stream import Frames
from puna.request_log import without_request
from puna.runtime.errors import HostFailedError, HostKilledError, NodeError, NodeFullError, NodeLostError
from puna.runtime.file_sender import FileSender
from puna.runtime.heartbeat import answered
from puna.runtime.host_process import KILLED
from puna.runtime.launcher import Endpoint, HostRequirements, NodeState, NodeStatus, OnTransfer
from puna.runtime.node_files import files_of, localized
from puna.runtime.remote_host import RemoteHost
from puna.runtime.tunnel import CONTROL, Tunnels, grpc_of, run_of

log = logging.getLogger(__name__)

RENEW_SECONDS: Final = 0.5
"""Pause between two renewals of a lease."""
LARGEST_MESSAGE: Final = 1 << 20
"""Bytes of a message of the node itself."""
LONGEST_LEASE: Final = 1e9
"""Seconds of a lease above which it counts as unknown."""
CORE_ID: Final = uuid4().hex
"""The identity of this process as a core."""


_StartCall: TypeAlias = "grpc.aio.UnaryStreamCall[wire.StartHostRequest, wire.StartHostResponse]"


class _LeaseUnknownError(NodeError):
    """The node does not know the lease: it was started anew, or has ended the lease."""


@dataclass(slots=True)
class _Link:
    """A lease of the node, and what belongs to it."""

    lease_id: str
    tunnels: Tunnels
    channel: grpc.aio.Channel
    stub: "node_pb2_grpc.NodeServiceAsyncStub"
    hosts: set[RemoteHost]
    close_socket: Callable[[], None]
    files: FileSender
    renewing: "asyncio.Task[None] | None" = None
    expires_ns: int = 0
    """When the lease ends unless it is renewed, in nanoseconds since 1970."""
    lost: str = ""
    """Why the node is gone; empty if it is not."""


class Node:
    """A node at an address. `aclose` gives its lease back."""

    def __init__(
        self, address: str, context: ssl.SSLContext, next_socket: Callable[[], Path], silence_seconds: float
    ) -> None:
        """`address` is "host:port"; `next_socket` returns a new path for each Unix socket on this machine."""
        self.address = address
        self._context = context
        self._next_socket = next_socket
        self._silence_seconds = silence_seconds
        self._link: _Link | None = None
        self._linking = asyncio.Lock()
        self.free_bytes = 0
        """Free memory of the node, as it told last; 0: unknown."""
        self._failure = ""
        """Why the last attempt to connect failed; empty if it did not."""
        self._losses = 0

    @property
    def hosts(self) -> int:
        """Number of hosts that run on the node."""
        return len(self._link.hosts) if self._link is not None else 0

    @property
    def connected(self) -> bool:
        """Whether this core holds the node's lease."""
        return self._link is not None and not self._link.lost

    def status(self) -> NodeStatus:
        """Return what an operator wants to know of the node."""
        link = self._link
        if link is not None and not link.lost:
            state, error = NodeState.CONNECTED, ""
        else:
            state = NodeState.CONNECTING if self._linking.locked() else NodeState.DISCONNECTED
            error = self._failure or (link.lost if link is not None else "")
        return NodeStatus(
            address=self.address,
            state=state,
            hosts=self.hosts,
            free_bytes=self.free_bytes,
            lease_expires_ns=link.expires_ns if link is not None and state is NodeState.CONNECTED else 0,
            error=error,
            losses=self._losses,
        )

    async def connect(self) -> None:
        """Take the node's lease, if this core does not hold it. Raises NodeError."""
        async with self._linking:
            if self.connected:
                return
            try:
                self._link = await self._take()
            except NodeError as error:
                self._failure = str(error)
                raise
            self._failure = ""

    async def start(self, requirements: HostRequirements) -> Endpoint:
        """Start a host and wait until it listens. The node must have been connected.

        A node that was started anew meanwhile is connected again. Raises NodeError if the node is gone or lacks the
        backend, and HostFailedError if the host does not start.
        """
        link = self._link
        try:
            return await self._start(link, requirements)
        except _LeaseUnknownError as error:
            if link is not None:
                await self._lose(link, str(error))
            await self.connect()
            return await self._start(self._link, requirements)

    async def _start(self, link: _Link | None, requirements: HostRequirements) -> Endpoint:
        """Start a host under a lease. Raises what `start` raises, and _LeaseUnknownError."""
        if link is None or link.lost:
            raise NodeError(link.lost if link is not None else f"{self.address} is not connected")
        # The id is known once the host has started, and it cannot be stopped earlier than that.
        host_id = ""

        async def stop(kill: bool) -> None:
            request = wire.StopHostRequest(lease_id=link.lease_id, host_id=host_id, kill=kill)
            with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):
                await link.stub.StopHost(request)

        host = RemoteHost(self.address, requirements.label, stop)
        call = link.stub.StartHost(
            wire.StartHostRequest(
                lease_id=link.lease_id,
                backend=requirements.backend.name,
                label=requirements.label,
                ready_seconds=requirements.ready_seconds,
            )
        )
        link.hosts.add(host)
        try:
            host_id = await self._started(call, host, link)
            socket = self._next_socket()
            close_socket = await link.tunnels.listen(socket, grpc_of(host_id))
        except BaseException:
            link.hosts.discard(host)
            call.cancel()
            raise
        watch = asyncio.create_task(self._watch(call, host, link), context=without_request())

        async def release() -> None:
            await host.stop()
            close_socket()
            call.cancel()
            await asyncio.wait({watch})

        return Endpoint(
            host=host,
            address=f"unix:{socket}",
            open_stream=partial(self._open_stream, link, host_id),
            release=release,
            localize=partial(self._localize, link, host_id),
        )

    async def aclose(self) -> None:
        """Give the lease back."""
        link, self._link = self._link, None
        if link is None or link.lost:
            return
        with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError):
            await link.stub.ReleaseLease(
                wire.ReleaseLeaseRequest(lease_id=link.lease_id), timeout=self._silence_seconds
            )
        await self._end(link, f"{self.address} is not used any more")

    async def _started(self, call: _StartCall, host: RemoteHost, link: _Link) -> str:
        """Wait until a host has started; return its id."""
        with self._errors(link):
            try:
                async for event in call:
                    if event.HasField("started"):
                        host.started(event.started.process_id)
                        return event.started.host_id
                    host.take(event)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    raise _LeaseUnknownError(f"{self.address}: {error.details()}") from error
                if error.code() is grpc.StatusCode.ABORTED and host.status == KILLED:
                    raise HostKilledError(f"{error.details()} (on {self.address})") from None
                raise
        raise NodeError(f"{self.address} has not started the host")

    async def _watch(self, call: _StartCall, host: RemoteHost, link: _Link) -> None:
        """Pass on what the node tells of a host, until the host ends."""
        reason = f"{self.address} tells no more of it"
        try:
            with self._errors(link):
                async for event in call:
                    host.take(event)
        except LoadFailedError as error:
            reason = str(error)
        finally:
            link.hosts.discard(host)
            host.lose(reason)

    async def _open_stream(
        self,
        link: _Link,
        host_id: str,
        take: Callable[[bytes], None],
        gone: Callable[[], None],
        *,
        max_message_bytes: float,
        on_too_long: Callable[[int], None],
    ) -> Frames | None:
        return await link.tunnels.open_frames(
            run_of(host_id), lambda: Frames(take, gone, max_message_bytes, on_too_long)
        )

    async def _localize(self, link: _Link, host_id: str, spec: ModelSpec, on_transfer: OnTransfer) -> ModelSpec:
        """Have the node get the files of a model; return a specification with the node's paths and memory.

        Raises NodeError if the node cannot have them, and LoadFailedError if a file is damaged here.
        """
        files = await asyncio.to_thread(files_of, spec)
        await self._fetch(link, host_id, files, on_transfer)
        request = wire.PlaceFilesRequest(lease_id=link.lease_id, host_id=host_id, files=files)
        with self._errors(link):
            placed = await link.stub.PlaceFiles(request)
        return localized(spec, files, placed)

    async def _fetch(self, link: _Link, host_id: str, files: Sequence[wire.ModelFile], on_transfer: OnTransfer) -> None:
        """Have the node get files, and send those that it wants."""
        request = wire.FetchFilesRequest(lease_id=link.lease_id, host_id=host_id, files=files)
        try:
            with self._errors(link):
                await link.files.serve(link.stub.FetchFiles(request), files, on_transfer)
        except NodeError as error:
            if link.lost:
                raise NodeLostError(f"unable to load model: {error}") from None
            raise

    async def _take(self) -> _Link:
        """Take the lease. Raises NodeError."""
        tunnels = Tunnels(self.address, self._context)
        # The reason why a node refuses a connection is known here; gRPC would hide it.
        await tunnels.check()
        socket = self._next_socket()
        close_socket = await tunnels.listen(socket, CONTROL)
        largest = ("grpc.max_receive_message_length", LARGEST_MESSAGE)
        channel = grpc.aio.insecure_channel(f"unix:{socket}", options=(largest, *OPTIONS))
        stub: node_pb2_grpc.NodeServiceAsyncStub = node_pb2_grpc.NodeServiceStub(channel)
        sender = FileSender(self.address, self._context)
        link = _Link(uuid4().hex, tunnels, channel, stub, set(), close_socket, sender)
        try:
            if not await self._renew(link):
                raise NodeError(f"{self.address} does not answer")
        except BaseException as error:
            await self._end(link, str(error))
            raise
        log.info("%s runs hosts for this core", self.address)
        link.renewing = asyncio.create_task(self._keep(link), context=without_request())
        return link

    async def _keep(self, link: _Link) -> None:
        """Renew the lease until the node is gone."""
        silent = 0.0
        while not link.lost:
            await asyncio.sleep(RENEW_SECONDS)
            silent += RENEW_SECONDS
            try:
                if await self._renew(link):
                    silent = 0.0
                    continue
                reason = f"{self.address} has not answered for {self._silence_seconds:g} s"
            except NodeError as error:
                reason = str(error)
                # The connection may have been lost alone; the next renewal opens another one.
                if silent < self._silence_seconds and not link.lost and _may_recover(error):
                    continue
            await self._lose(link, reason)

    async def _renew(self, link: _Link) -> bool:
        """Renew the lease; return whether the node has answered in time. Raises NodeError if it refuses."""
        request = wire.RenewLeaseRequest(core_id=CORE_ID, core_name=_name(), lease_id=link.lease_id)
        answer = asyncio.ensure_future(link.stub.RenewLease(request))
        try:
            with self._errors(link):
                if not await answered(answer, self._silence_seconds):
                    return False
                renewed = answer.result()
                self.free_bytes = max(renewed.free_memory_bytes, 0)
                link.expires_ns = time.time_ns() + _lease_ns(renewed.seconds)
        finally:
            answer.cancel()
        return True

    async def _lose(self, link: _Link, reason: str) -> None:
        """Give up a link whose node is gone, unless that has happened before."""
        if link.lost:
            return
        log.error("%s: its %d hosts are given up", reason, len(link.hosts))
        self._losses += 1
        events.publish(events.NodeLost(node=self.address, hosts=len(link.hosts), error=reason))
        await self._end(link, reason)

    async def _end(self, link: _Link, reason: str) -> None:
        """Give up a link and its hosts."""
        link.lost = link.lost or reason
        if link.renewing is not None and link.renewing is not asyncio.current_task():
            link.renewing.cancel()
        # First the reason, then the connections, whose end wakes what waits for the hosts.
        for host in list(link.hosts):
            host.lose(reason)
        link.tunnels.abort()
        link.files.abort()
        link.close_socket()
        await link.channel.close()

    @contextmanager
    def _errors(self, link: _Link) -> Iterator[None]:
        """Turn the errors of a call to the node into NodeError, and HostFailedError if a host did not start."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.ABORTED:
                raise HostFailedError(f"{error.details()} (on {self.address})") from None
            if error.code() is grpc.StatusCode.DATA_LOSS:
                raise LoadFailedError(f"unable to load model: {error.details()}") from None
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                raise self._gone(link) from error
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise NodeFullError(f"{self.address}: {error.details()}") from error
            raise NodeError(f"{self.address}: {error.details()}") from error
        except grpc.aio.UsageError:
            raise self._gone(link) from None
        except asyncio.CancelledError:
            # A channel that closes cancels its calls, which does not mean that the caller was cancelled.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise self._gone(link) from None

    def _gone(self, link: _Link) -> NodeError:
        """Return the error of a call whose connection has ended."""
        if link.lost:
            return NodeLostError(link.lost)
        return NodeError(f"{self.address} cannot be reached: the connection to it broke")


def _lease_ns(seconds: float) -> int:
    """Return the duration of a lease in nanoseconds. The node tells it, so it may be any number."""
    return int(seconds * 1e9) if 0 < seconds < LONGEST_LEASE else 0


def _may_recover(error: NodeError) -> bool:
    cause = error.__cause__
    return isinstance(cause, grpc.aio.AioRpcError) and cause.code() is grpc.StatusCode.UNAVAILABLE


def _name() -> str:
    """Return the name of this core for people."""
    return f"{socket.gethostname()} (process {os.getpid()})"
