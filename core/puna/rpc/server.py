"""Building the gRPC server and running it for as long as a context lasts."""

import asyncio
import errno
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from puna.limits import LARGEST_INT32, Limits
from puna.rpc.chat import ChatServicer
from puna.rpc.embed import EmbedServicer
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
from puna.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    embed_pb2,
    embed_pb2_grpc,
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
"""Bytes of an answer, which may be a whole vocabulary."""
PINGS: Final = 5.0
"""Seconds between two pings of a client that are no abuse. Clients are told to ping every ten seconds at most."""
DEAD: Final = 20.0
"""Seconds in which a client that sends nothing must answer a ping."""
MEASURES_PACKED: Final = (1, 85)
"""The version of gRPC from which on it stops unpacking a message that grows too large. Older ones unpack all of it."""
GRACE: Final = 0.5
"""Seconds that calls have to end by themselves when the server stops."""
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
            (server_pb2, "ServerService"),
        )
    ),
)


@asynccontextmanager
async def serving(core: Serving, address: str, *, uds: str | None = None) -> AsyncGenerator[str]:
    """Serve on `address` ("host:port"; port 0 picks a free one), and on a Unix socket of this path if one is given.

    Yields the address bound. Leaving ends the calls under way. OSError: the address cannot be had.
    """
    limits = core.settings.limits
    calls = min(limits.max_grpc_calls, LARGEST_INT32)
    server = grpc.aio.server(options=options(limits), maximum_concurrent_rpcs=calls)
    guard = Guarded(server, Intake(limits))
    guarded = cast("grpc.aio.Server", guard)
    add_services(core, guarded)
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(core, SERVICES), guarded)
    add_reflection((*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), guard)
    port = _bound(server, address)
    if uds is not None:
        _bound(server, f"unix:{uds}")
    await server.start()
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        core.activity.ending = True
        await server.stop(GRACE)
        # stop() cancels what is left and does not wait for it; the pool below must not close under anybody's feet.
        if ending := [entry.task for entry in core.activity.entries()]:
            await asyncio.wait(ending, timeout=LAST_GRACE)


def options(limits: Limits) -> tuple[tuple[str, int], ...]:
    """Return the options of a gRPC server within these limits."""
    found = (
        ("grpc.max_receive_message_length", limits.max_request_bytes),
        ("grpc.max_send_message_length", ANSWERS),
        ("grpc.max_metadata_size", 1 << 20),
        ("grpc.absolute_max_metadata_size", 4 << 20),
        # A second server on the port must fail, not take half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", limits.max_grpc_connections),
        ("grpc.max_concurrent_streams", limits.max_grpc_streams),
        ("grpc.server_handshake_timeout_ms", limits.header_timeout * 1000),
        ("grpc.max_connection_idle_ms", limits.idle_timeout * 1000),
        ("grpc.keepalive_time_ms", limits.write_timeout * 1000),
        ("grpc.keepalive_timeout_ms", DEAD * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PINGS * 1000),
    )
    version = tuple(int(each) for each in grpc.__version__.split(".")[:2])
    packed = () if version >= MEASURES_PACKED else (("grpc.compression_enabled_algorithms_bitset", 1),)
    return tuple((name, int(min(value, LARGEST_INT32))) for name, value in found) + packed


def add_services(core: Serving, server: grpc.aio.Server) -> None:
    """Add every service of the public API."""
    generate_pb2_grpc.add_GenerateServiceServicer_to_server(GenerateServicer(core), server)
    chat_pb2_grpc.add_ChatServiceServicer_to_server(ChatServicer(core), server)
    embed_pb2_grpc.add_EmbedServiceServicer_to_server(EmbedServicer(core), server)
    models_pb2_grpc.add_ModelsServiceServicer_to_server(ModelsServicer(core), server)
    tokenize_pb2_grpc.add_TokenizeServiceServicer_to_server(TokenizeServicer(core), server)
    rank_pb2_grpc.add_RankServiceServicer_to_server(RankServicer(core), server)
    server_pb2_grpc.add_ServerServiceServicer_to_server(ServerServicer(core), server)


def _bound(server: grpc.aio.Server, address: str) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _unavailable(address) from error
    if port == 0:
        raise _unavailable(address)
    return port


def _unavailable(address: str) -> OSError:
    return OSError(errno.EADDRINUSE, f"gRPC cannot listen on {address}: the address is taken or not of this machine")
