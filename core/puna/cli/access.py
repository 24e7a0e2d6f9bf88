"""What a server checks about its callers before it starts: keys, and the addresses from which it can be reached."""

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

from puna.auth.gate import Gate
from puna.auth.keys import KeyFile, KeyFileError
from puna.auth.usage import Ledger
from puna.process.tls import Files
from puna.settings import Settings

log = logging.getLogger(__name__)

SAVE_SECONDS: Final = 10.0
"""Seconds between two writes of the usage of keys."""
ASK_SECONDS: Final = 5.0
"""Seconds in which the core must say whether its callers need keys."""


def gate(settings: Settings) -> Gate:
    """Return the gate of a core. OSError: the file of keys cannot be read."""
    try:
        keys = KeyFile(settings.keys)
    except KeyFileError as error:
        raise OSError(errno.EINVAL, str(error)) from error
    return Gate(keys, Ledger(settings.keys.with_name("usage.json")), settings.expose)


@asynccontextmanager
async def saving(found: Gate | None) -> AsyncGenerator[None]:
    """Write the usage of keys to its file now and then, and when the block ends."""
    if found is None:
        yield
        return

    async def save() -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            await asyncio.to_thread(found.ledger.save)

    task = asyncio.create_task(save())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        found.ledger.save()


def tls_files(settings: Settings) -> Files | None:
    """Return the certificate's files; None without TLS. OSError: one of two settings is missing."""
    if settings.tls_certificate is None and settings.tls_key is None and settings.tls_client_ca is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise OSError(errno.EINVAL, "TLS needs both PUNA_TLS_CERTIFICATE and PUNA_TLS_KEY")
    return Files(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


async def check(settings: Settings, found: Gate | None, *, core: bool, rest: bool, target: str | None) -> bool:
    """Refuse to serve other machines without a key, unless the operator allows it in words.

    Return whether other machines can call this server, with a key or without.

    `found` is the gate of the core in this process; without one, the core at `target` is asked whether it has keys.
    OSError: the server must not start.
    """
    places = {}
    if core:
        places["PUNA_GRPC_HOST"] = settings.grpc_host.rpartition(":")[0]
        if settings.metrics_host:
            places["PUNA_METRICS_HOST"] = settings.metrics_host.rpartition(":")[0]
    if rest:
        places["OLLAMA_HOST"] = settings.host
    reachable = [name for name, host in places.items() if not await asyncio.to_thread(is_loopback, host)]
    if not reachable:
        return False
    closed = found.closed if found is not None else await needs_key(settings, target or settings.grpc_host)
    offered = f"only {', '.join(settings.expose)}" if settings.expose else "every operation on every model"
    what = " and ".join(f"{name} ({places[name]})" for name in reachable)
    if closed or settings.tls_client_ca is not None:
        log.info("others can reach %s; they need %s", what, "a key" if closed else "a certificate")
    elif settings.allow_anonymous:
        log.warning("others can reach %s, and need no key: %s is open to them", what, offered)
    else:
        text = (
            f"others can reach {what}, and no API key protects {offered}. `puna key create NAME` makes a key; "
            "PUNA_ALLOW_ANONYMOUS=1 opens the server to everyone"
        )
        raise OSError(errno.EACCES, text)
    # The address of metrics takes no calls.
    return any(name != "PUNA_METRICS_HOST" for name in reachable)


def is_loopback(host: str) -> bool:
    """Return whether all addresses of a host name are loopback addresses. Blocks."""
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, 0, flags=socket.AI_PASSIVE, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_loopback for each in found)


async def needs_key(settings: Settings, target: str) -> bool:
    """Return whether the core at `target` refuses callers without a key. A core that does not answer counts as open."""
    import grpc.aio

    from puna.cli.client import open_channel
    from puna_client.v1 import server_pb2, server_pb2_grpc

    with suppress(TimeoutError):
        async with asyncio.timeout(ASK_SECONDS), open_channel(settings, target, with_key=False) as channel:
            try:
                await server_pb2_grpc.ServerServiceStub(channel).GetServerInfo(server_pb2.GetServerInfoRequest())
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False
