"""Running the server: core, bridge or both, until a signal ends it."""

import asyncio
import errno
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn, cast

from puna import offload, request_log
from puna.cli.signals import Signals, finish
from puna.limits import Limits
from puna.process.watchdog import watching
from puna.settings import Settings

if TYPE_CHECKING:
    import grpc.aio

    from puna.models.store import ModelStore
    from puna.plugins import Registry

log = logging.getLogger(__name__)

MOST_HANDLES: Final = 1 << 20
"""Open files that are asked for when connections have no limit."""
HANDLES: Final = 1024
"""Open files for everything but connections: models, their hosts, downloads, logs."""


BRIDGE_SECONDS = 1.0
"""How long the bridge may take to tell its clients what has become of requests that the core has ended."""
CLOSING_SECONDS = 30.0
"""How long a server that has stopped serving may take to end."""


def run(settings: Settings, *, core: bool, rest: bool, target: str | None = None) -> NoReturn:
    """Serve until SIGINT, SIGTERM or SIGHUP, and end this process.

    The status is 0 after a first signal, 1 with a word on stderr when an address or the store cannot be had, and what
    `puna.cli.signals` says otherwise.
    """
    signals = Signals()
    offload.prepare()
    gc.disable()  # looking through the modules for garbage while they come takes a tenth of the start
    # gRPC's C core would print its own words beside ours, before logging is told where to go.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    request_log.configure(logging.DEBUG if settings.debug else logging.INFO)
    settings = replace(settings, limits=_within_handles(settings.limits))
    try:
        asyncio.run(_serve(settings, signals, core=core, rest=rest, target=target))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"Error: {place}{error.strerror or error}", file=sys.stderr)
        finish(1)
    finish(0)


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


async def _serve(settings: Settings, signals: Signals, *, core: bool, rest: bool, target: str | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    seconds = settings.limits.max_drain_seconds
    async with AsyncExitStack() as stack:
        places = []
        running = None
        if core and rest:
            # The port that users know is named before the one that they may not, and before anything is opened.
            async with _listening(f"{settings.host}:{settings.port}", "OLLAMA_HOST"):
                _try(settings.host, settings.port)
        if core:
            async with _listening(settings.grpc_host, "PUNA_GRPC_HOST"):
                running = await stack.enter_async_context(running_core(settings))
            places.append(f"gRPC on {running.address}")
        if rest:
            from puna_rest.app import bridging

            bridge = bridging(
                running.channel if running else target or settings.grpc_host,
                host=settings.host,
                port=settings.port,
                origins=settings.origins,
                allowed_hosts=settings.allowed_hosts,
                limits=settings.limits,
                drain_seconds=BRIDGE_SECONDS if running else seconds,
            )
            async with _listening(f"{settings.host}:{settings.port}", "OLLAMA_HOST"):
                url = await stack.enter_async_context(bridge)
            places.insert(0, f"REST on {url}")
        works = running is None or await asyncio.to_thread(report_broken, running.backends, settings.default_backend)
        gc.freeze()  # what is there now stays, so nobody need look through it again
        gc.enable()
        stack.enter_context(watching(settings.limits.max_loop_seconds))
        signals.expect(lambda: loop.call_soon_threadsafe(stop.set))
        print(("Puna is ready: " if works else "Puna runs, but can run no model: ") + ", ".join(places), flush=True)
        await stop.wait()
        log.info("ending: requests have %g s to finish; a second signal ends them at once", seconds)
        if running is not None:
            await running.drain(seconds)
        signals.end_within(CLOSING_SECONDS if running else seconds + CLOSING_SECONDS)


def report_broken(backends: "Registry", default: str) -> bool:
    """Log each broken backend with the reason; return whether any backend works. Imports all plugins.

    A missing library is worth a warning only if it is that of the `default` backend, the one of PUNA_BACKEND: nobody
    needs every backend. Without a working backend every reason is an error.
    """
    found = backends.describe()
    works = any(not each.error for each in found)
    for each in found:
        if each.error:
            level = logging.ERROR if not works else logging.WARNING if each.name == default else logging.INFO
            log.log(level, "backend %s is not available: %s", each.name, each.error)
    if not found:
        log.error("no backend is installed")
    return works


def _open(store: "ModelStore") -> None:
    """Make the store if there is none, and tidy it up. OSError: it cannot be made or read."""
    from puna.demo.install import install_in_new_store

    root = store.root
    try:
        if root.is_symlink() and not root.exists():
            raise FileNotFoundError(errno.ENOENT, f"it is a link to {root.readlink()}, which does not exist")
        if not root.exists() and not install_in_new_store(root):
            root.mkdir(parents=True, exist_ok=True)
        store.check()
    except OSError as error:
        why = error.strerror or str(error)
        text = f"the store {root} cannot be used: {why[:1].lower() + why[1:]}. OLLAMA_MODELS chooses another folder"
        raise OSError(error.errno, text) from error
    if not os.access(root, os.W_OK):
        log.warning("the store %s cannot be written: models can be neither pulled nor created nor removed", root)
    store.prune()


@dataclass(frozen=True, slots=True)
class RunningCore:
    """The core, as it runs."""

    channel: "grpc.aio.Channel"
    """To it, within this process."""
    address: str
    """Where it serves gRPC."""
    drain: Callable[[float], Awaitable[None]]
    """Takes no more requests, and ends those that take longer than some seconds."""
    backends: "Registry"
    """The installed backends."""


@asynccontextmanager
async def running_core(settings: Settings) -> AsyncGenerator[RunningCore]:
    """Run the core.

    Leaving stops the server, then unloads every model.
    """
    from puna.models.store import ModelStore
    from puna.plugins import Registry
    from puna.rpc.inprocess import InProcessChannel
    from puna.rpc.server import add_services, serving
    from puna.runtime.pool import ModelPool
    from puna.sandbox.sandbox import Sandbox
    from puna.serving.core import Serving

    sandbox = Sandbox(settings.limits)
    store = ModelStore(
        settings.models,
        no_prune=settings.no_prune,
        go_template=settings.go_template,
        read_template=sandbox.facts,
    )
    await asyncio.to_thread(_open, store)
    backends = Registry.discover()
    async with (
        sandbox,
        ModelPool(backends, settings) as pool,
        serving(core := Serving(store, pool, settings, backends, sandbox), settings.grpc_host) as address,
        InProcessChannel() as channel,
    ):
        add_services(core, cast("grpc.aio.Server", channel))
        yield RunningCore(cast("grpc.aio.Channel", channel), address, core.activity.drain, backends)
