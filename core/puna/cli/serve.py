"""Running the server: core, bridge or both, until a signal ends it."""

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from puna.limits import Limits
from puna.settings import Settings
from puna.watchdog import watching

if TYPE_CHECKING:
    import grpc.aio

log = logging.getLogger(__name__)

MOST_HANDLES: Final = 1 << 20
"""Open files that are asked for when connections have no limit."""
HANDLES: Final = 1024
"""Open files for everything but connections: models, their hosts, downloads, logs."""


def run(settings: Settings, *, core: bool, rest: bool, target: str | None = None) -> int:
    """Serve until SIGINT or SIGTERM; return 0, or 1 with a word on stderr when an address cannot be had."""
    gc.disable()  # looking through the modules for garbage while they come takes a tenth of the start
    # gRPC's C core would print its own words beside ours, before logging is told where to go.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.basicConfig(
        level=logging.DEBUG if settings.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    settings = replace(settings, limits=_within_handles(settings.limits))
    try:
        asyncio.run(_serve(settings, core=core, rest=rest, target=target))
    except OSError as error:
        print(f"Error: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _within_handles(limits: Limits) -> Limits:
    """Raise the limit on open files as far as it is of use, and return limits whose connections it has room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(limits.max_connections + limits.max_grpc_connections + HANDLES, MOST_HANDLES)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    room = max(soft - HANDLES, soft // 2)
    rest = min(limits.max_connections, max(room - limits.max_grpc_connections, room * 3 // 4))
    found = replace(limits, max_connections=rest, max_grpc_connections=min(limits.max_grpc_connections, room - rest))
    log.info("%d open files are allowed, so that there may be %d connections to REST", soft, rest)
    return found


def _try(host: str, port: int) -> None:
    """Raise OSError when an address cannot be had."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen()


@asynccontextmanager
async def _listening(address: str, variable: str) -> AsyncGenerator[None]:
    """Say in the user's words why an address cannot be had."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        text = f"{address} is already in use, perhaps by another server. {variable} chooses another address"
        raise OSError(error.errno, text) from error


async def _serve(settings: Settings, *, core: bool, rest: bool, target: str | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        places = []
        if core and rest:
            # The port that users know is named before the one that they may not, and before anything is opened.
            async with _listening(f"{settings.host}:{settings.port}", "OLLAMA_HOST"):
                _try(settings.host, settings.port)
        if core:
            async with _listening(settings.grpc_host, "PUNA_GRPC_HOST"):
                channel, address = await stack.enter_async_context(running_core(settings))
            places.append(f"gRPC on {address}")
        if rest:
            from puna_rest.app import bridging

            reached = channel if core else target or settings.grpc_host
            bridge = bridging(
                reached,
                host=settings.host,
                port=settings.port,
                origins=settings.origins,
                allowed_hosts=settings.allowed_hosts,
                limits=settings.limits,
            )
            async with _listening(f"{settings.host}:{settings.port}", "OLLAMA_HOST"):
                url = await stack.enter_async_context(bridge)
            places.insert(0, f"REST on {url}")
        gc.freeze()  # what is there now stays, so nobody need look through it again
        gc.enable()
        stack.enter_context(watching(settings.limits.max_loop_seconds))
        print("Puna is ready: " + ", ".join(places), flush=True)
        await stop.wait()
        # A second signal need not wait for anything.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def running_core(settings: Settings) -> AsyncGenerator[tuple["grpc.aio.Channel", str]]:
    """Run the core; yield a channel to it within this process, and its gRPC address.

    Leaving stops the server, then unloads every model.
    """
    from puna.demo.install import install_in_new_store
    from puna.models.store import ModelStore
    from puna.plugins import Registry
    from puna.rpc.inprocess import InProcessChannel
    from puna.rpc.server import add_services, serving
    from puna.runtime.pool import ModelPool
    from puna.serving.serving import Serving

    await asyncio.to_thread(install_in_new_store, settings.models)
    store = ModelStore(settings.models, no_prune=settings.no_prune, go_template=settings.go_template)
    await asyncio.to_thread(store.prune)
    backends = Registry.discover()
    async with (
        ModelPool(backends, settings) as pool,
        serving(core := Serving(store, pool, settings, backends), settings.grpc_host) as address,
        InProcessChannel() as channel,
    ):
        add_services(core, cast("grpc.aio.Server", channel))
        yield cast("grpc.aio.Channel", channel), address
