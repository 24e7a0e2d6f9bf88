"""The gRPC server: options, services, start and graceful stop."""

import asyncio
import errno
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from puna.auth.gate import Gate
from puna.batch.core import Batches
from puna.diagnostics.diagnostics import Diagnostics
from puna.limits import LARGEST_INT32
from puna.process import exit as process_exit
from puna.rpc import load_reports
from puna.rpc.authorization import Admission
from puna.rpc.batch import BatchServicer
from puna.rpc.chat import ChatServicer
from puna.rpc.diagnostics import DiagnosticsServicer
from puna.rpc.embed import EmbedServicer
from puna.rpc.files import FilesServicer
from puna.rpc.generate import GenerateServicer
from puna.rpc.health import HealthServicer
from puna.rpc.intake import Guarded, Intake
from puna.rpc.models import ModelsServicer
from puna.rpc.rank import RankServicer
from puna.rpc.reflect import add_reflection
from puna.rpc.server_info import ServerServicer
from puna.rpc.tokenize import TokenizeServicer
from puna.serving.activity import LAST_GRACE
from puna.serving.core import Serving
from puna.settings import Settings
from puna_client.v1 import (
    batch_pb2,
    batch_pb2_grpc,
    chat_pb2,
    chat_pb2_grpc,
    diagnostics_pb2,
    diagnostics_pb2_grpc,
    embed_pb2,
    embed_pb2_grpc,
    files_pb2,
    files_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    rank_pb2,
    rank_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
    tokenize_pb2,
    tokenize_pb2_grpc,
)

ANSWERS: Final = 512 << 20
"""Largest answer in bytes. A model description can hold a whole vocabulary."""
PINGS: Final = 5.0
"""Shortest interval in seconds of a client's pings. Libraries ping every ten seconds at most, some of them early."""
MEASURES_PACKED: Final = (1, 85)
"""First version of gRPC that stops decompressing a message at its size limit. Older versions decompress all of it."""
GRACE: Final = 0.5
"""Seconds in which running calls may end by themselves when the server stops."""
SERVICES: Final = (
    *(
        module.DESCRIPTOR.services_by_name[name].full_name
        for module, name in (
            (generate_pb2, "GenerateService"),
            (chat_pb2, "ChatService"),
            (embed_pb2, "EmbedService"),
            (models_pb2, "ModelsService"),
            (tokenize_pb2, "TokenizeService"),
            (rank_pb2, "RankService"),
            (batch_pb2, "BatchService"),
            (files_pb2, "FilesService"),
            (server_pb2, "ServerService"),
            (diagnostics_pb2, "DiagnosticsService"),
        )
    ),
)


@asynccontextmanager
async def serving(
    core: Serving,
    address: str,
    *,
    uds: Callable[[int], Path | None] | None = None,
    gate: Gate | None = None,
    credentials: grpc.ServerCredentials | None = None,
    batches: Batches | None = None,
    diagnostics: Diagnostics | None = None,
) -> AsyncGenerator[str]:
    """Serve until the context ends; yield the bound address.

    `address` is "host:port"; port 0 takes a free one. `uds` returns the path of a Unix socket to serve on too, given
    the bound port, or None. `gate` decides about calls; without one every caller may do everything. With `credentials`
    the port speaks TLS. `batches` are those that the services of batches and files serve, and `diagnostics` is what
    DiagnosticsService shows. On exit, running calls end after GRACE with the status of a server that ends. OSError: the
    address is not available.
    """
    limits = core.settings.limits
    calls = min(limits.max_grpc_calls, LARGEST_INT32)
    server = grpc.aio.server(options=options(core.settings), maximum_concurrent_rpcs=calls)
    reports = load_reports.LoadReports(core)
    guard = Guarded(server, Intake(limits), Admission(gate, bridge=False, reports=reports) if gate else None)
    # The generated adders call two methods of a server, which Guarded has.
    guarded = cast("grpc.aio.Server", guard)
    add_services(core, guarded, batches, diagnostics)
    HealthServicer(core, SERVICES).add_to(guard)
    guard.add_registered_method_handlers(load_reports.SERVICE, reports.handlers())
    add_reflection((*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), guard)
    port = _bound(server, address, credentials)
    path = uds(port) if uds is not None else None
    if path is not None:
        path.unlink(missing_ok=True)  # a server that was killed leaves the file
        process_exit.PATHS.add(str(path))
        _bound(server, f"unix:{path}")
    await server.start()
    leaving = asyncio.create_task(_leave(server, core))
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        # Returns at once after the drain of `puna serve`. Other users of this function get their own short one.
        await core.activity.drain(GRACE)
        # The shorter grace of two stops wins.
        await server.stop(GRACE)
        await leaving
        # stop() cancels remaining calls without waiting for them. They must end before the pool below is closed.
        if ending := [entry.task for entry in core.activity.entries()]:
            await asyncio.wait(ending, timeout=LAST_GRACE)
        if path is not None:
            path.unlink(missing_ok=True)
            process_exit.PATHS.discard(str(path))


async def _leave(server: grpc.aio.Server, core: Serving) -> None:
    """Close the listener and send GOAWAY on every connection, as soon as the core takes no more requests.

    Clients then open no more calls here, and connect elsewhere. Calls under way go on: the core ends them itself when
    their time is over, with a status that says why. The grace given to gRPC is longer than that.
    """
    await core.activity.refusing()
    await server.stop(min(core.settings.limits.max_drain_seconds, LARGEST_INT32) + 2 * LAST_GRACE)


def options(settings: Settings) -> tuple[tuple[str, int], ...]:
    """Return the options of a gRPC server for the settings."""
    limits = settings.limits
    found = (
        ("grpc.max_receive_message_length", limits.max_request_bytes),
        ("grpc.max_send_message_length", ANSWERS),
        ("grpc.max_metadata_size", 1 << 20),
        ("grpc.absolute_max_metadata_size", 4 << 20),
        # Level 1 compresses with gzip if the client accepts it. See puna.rpc.writing for the messages.
        ("grpc.default_compression_level", 1),
        # Without this, a second server on the port would start and receive half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", limits.max_grpc_connections),
        ("grpc.max_concurrent_streams", limits.max_grpc_streams),
        ("grpc.server_handshake_timeout_ms", limits.header_timeout * 1000),
        ("grpc.max_connection_idle_ms", limits.idle_timeout * 1000),
        # The server pings clients that are silent, also without a call, and closes connections that do not answer.
        ("grpc.keepalive_time_ms", settings.keepalive_time * 1000),
        ("grpc.keepalive_timeout_ms", settings.keepalive_timeout * 1000),
        # Its default of a minute would hold for the pings of idle connections, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", settings.keepalive_timeout * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        # 0: the number of pings without a message in between is not limited.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", PINGS * 1000),
        ("grpc.max_connection_age_ms", settings.connection_age * 1000),
        ("grpc.max_connection_age_grace_ms", settings.connection_age_grace * 1000),
    )
    version = tuple(int(each) for each in grpc.__version__.split(".")[:2])
    # The bit set 1 allows "identity" alone, that is, no compression.
    packed = () if version >= MEASURES_PACKED else (("grpc.compression_enabled_algorithms_bitset", 1),)
    # gRPC reads these as 32-bit integers. "No limit" is infinity or sys.maxsize in Limits.
    return tuple((name, int(min(value, LARGEST_INT32))) for name, value in found) + packed


def add_services(
    core: Serving, server: grpc.aio.Server, batches: Batches | None = None, diagnostics: Diagnostics | None = None
) -> None:
    """Add all services of the public API to a server.

    Without `batches`, BatchService and FilesService refuse calls, and so does DiagnosticsService without `diagnostics`.
    """
    kept = batches or Batches()
    batch_pb2_grpc.add_BatchServiceServicer_to_server(BatchServicer(kept), server)
    files_pb2_grpc.add_FilesServiceServicer_to_server(FilesServicer(kept), server)
    generate_pb2_grpc.add_GenerateServiceServicer_to_server(GenerateServicer(core), server)
    chat_pb2_grpc.add_ChatServiceServicer_to_server(ChatServicer(core), server)
    embed_pb2_grpc.add_EmbedServiceServicer_to_server(EmbedServicer(core), server)
    models_pb2_grpc.add_ModelsServiceServicer_to_server(ModelsServicer(core), server)
    tokenize_pb2_grpc.add_TokenizeServiceServicer_to_server(TokenizeServicer(core), server)
    rank_pb2_grpc.add_RankServiceServicer_to_server(RankServicer(core), server)
    server_pb2_grpc.add_ServerServiceServicer_to_server(ServerServicer(core), server)
    diagnostics_pb2_grpc.add_DiagnosticsServiceServicer_to_server(
        DiagnosticsServicer(core, diagnostics or Diagnostics()), server
    )


def _bound(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _unavailable(address) from error
    # Older versions of gRPC return 0 where newer ones raise.
    if port == 0:
        raise _unavailable(address)
    return port


def _unavailable(address: str) -> OSError:
    return OSError(errno.EADDRINUSE, f"gRPC cannot listen on {address}: the address is taken or not of this machine")
