"""Running a node until a signal ends it."""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from puna.backend.v1 import node_pb2_grpc
from puna.host.channel import OPTIONS
from puna.host.stream import address as run_socket
from puna.node.file_cache import FileCache
from puna.node.lease import LeaseHolder
from puna.node.router import routing
from puna.node.servicer import NodeServicer
from puna.plugins import Registry
from puna.process.cluster_tls import node_context
from puna.runtime import sockets
from puna.runtime.tunnel import CONTROL, FILE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that listens."""

    address: str
    lease: LeaseHolder


@asynccontextmanager
async def running(
    backends: Registry,
    certificate: Path | ssl.SSLContext,
    host: str,
    port: int,
    lease_seconds: float,
    cache: FileCache,
    shared: Sequence[Path] = (),
) -> AsyncGenerator[RunningNode]:
    """Run a node until the context ends, and then its hosts.

    `certificate` is the folder that has the node's, or a context with it. `cache` keeps files of models; `shared` are
    folders of blobs that cores may share with this machine.

    Raises OSError if a certificate is not valid or the address is not available.
    """
    if isinstance(certificate, ssl.SSLContext):
        context = certificate
    else:
        context = await asyncio.to_thread(node_context, certificate)
    with sockets.folder() as paths:
        lease = LeaseHolder(lease_seconds)
        servicer = NodeServicer(backends, lease, paths.next, cache, shared)
        control = paths.next()
        server = grpc.aio.server(options=OPTIONS)
        node_pb2_grpc.add_NodeServiceServicer_to_server(servicer, server)
        server.add_insecure_port(f"unix:{control}")
        await server.start()

        def route(purpose: str) -> Path | asyncio.BufferedProtocol | None:
            kind, _, host_id = purpose.partition(" ")
            if kind == CONTROL:
                return control
            if kind == FILE:
                return servicer.receiver(host_id)
            if (socket := servicer.socket(host_id)) is None:
                return None
            return Path(run_socket(socket)) if kind == "run" else socket

        watching = asyncio.create_task(lease.watch())
        try:
            async with routing(host, port, context, route) as place:
                yield RunningNode(place, lease)
        finally:
            watching.cancel()
            await lease.aclose()
            await server.stop(grace=0)
