"""The server: core, bridge or both, until a signal ends it."""

import asyncio
import errno
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, cast

from puna import offload, request_lines, request_log
from puna.cli import access
from puna.cli.reloading import Reloader
from puna.cli.signals import Signals, finish
from puna.limits import Limits
from puna.process import core_socket, tls
from puna.process.watchdog import watching
from puna.settings import Settings

if TYPE_CHECKING:
    import grpc.aio

    from puna.auth.gate import Gate
    from puna.metrics.collector import Metrics
    from puna.models.store import ModelStore
    from puna.plugins import Registry
    from puna.runtime.pool import ModelPool
    from puna.serving.activity import Activity
    from puna.serving.core import Serving

log = logging.getLogger(__name__)

MOST_HANDLES: Final = 1 << 20
"""Limit on open files if the number of connections is unlimited."""
HANDLES: Final = 1024
"""Open files for models, hosts, downloads and logs, beside those for connections."""


BRIDGE_SECONDS = 1.0
"""Seconds in which the bridge passes on the errors of requests that the core has ended."""
CLOSING_SECONDS = 30.0
"""Seconds in which a server that no longer serves must end."""


def run(
    settings: Settings, *, core: bool, rest: bool, target: str | None = None, config: Path | None = None
) -> NoReturn:
    """Serve until SIGINT or SIGTERM, or until the terminal closes, and end this process.

    `config` names the configuration file that SIGHUP has the server read again; None: the default one.

    The status is 0 after a first signal. It is 1, with a message on standard error, if an address or the store is not
    available. `puna.cli.signals` describes the others.
    """
    # Before anything else is set up, so that a signal during the start ends the process at once.
    signals = Signals()
    offload.prepare()
    # Garbage collections during the imports would take a tenth of the start.
    gc.disable()
    # gRPC's C core would print messages of its own before logging is set up.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    request_log.configure(logging.DEBUG if settings.debug else logging.INFO, settings.log_format)
    request_lines.start()
    # A server that runs out of file descriptors fails in accept(), where no client can be told why.
    settings = replace(settings, limits=_within_handles(settings.limits))
    try:
        asyncio.run(_serve(settings, signals, core=core, rest=rest, target=target, config=config))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"Error: {place}{error.strerror or error}", file=sys.stderr)
        finish(1)
    finish(0)


def _within_handles(limits: Limits) -> Limits:
    """Raise the limit on open files. Return limits whose number of connections fits into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(limits.max_connections + limits.max_grpc_connections + HANDLES, MOST_HANDLES)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    # Where even HANDLES do not fit, connections get half of what there is.
    room = max(soft - HANDLES, soft // 2)
    rest = min(limits.max_connections, max(room - limits.max_grpc_connections, room * 3 // 4))
    found = replace(limits, max_connections=rest, max_grpc_connections=min(limits.max_grpc_connections, room - rest))
    log.info("%d open files are allowed, so that there may be %d connections to REST", soft, rest)
    return found


def _try(host: str, port: int) -> None:
    """Bind an address once. OSError: it is not available."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # Connections of a server that has just ended must not make its address look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen()


@asynccontextmanager
async def _listening(address: str, variable: str) -> AsyncGenerator[None]:
    """Turn an OSError about an address into a message that names the setting."""
    try:
        yield
    except OSError as error:
        # Errors of the store pass here as well. They name their own setting.
        if error.errno != errno.EADDRINUSE:
            raise
        text = f"{address} is already in use, perhaps by another server. {variable} chooses another address"
        raise OSError(error.errno, text) from error


async def _serve(
    settings: Settings, signals: Signals, *, core: bool, rest: bool, target: str | None, config: Path | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    seconds, delay = settings.limits.max_drain_seconds, settings.drain_delay
    async with AsyncExitStack() as stack:
        places = []
        running = None
        gate = access.gate(settings) if core else None
        reloader = Reloader(settings, gate, config)
        reachable = await access.check(settings, gate, core=core, rest=rest, target=target)
        if gate is not None:
            gate.reachable = reachable
        if core and rest:
            # Both addresses are tried before anything starts. The REST port comes first, because users know it.
            async with _listening(f"{settings.host}:{settings.port}", "OLLAMA_HOST"):
                _try(settings.host, settings.port)
        if core:
            if settings.traces:
                from puna.tracing.export import exporting

                # Entered first and left last, so that it sends the spans of requests which the drain ends.
                traces = exporting(settings.limits, with_content=settings.traces_content)
                log.info("traces are exported to %s", await stack.enter_async_context(traces))
            async with _listening(settings.grpc_host, "PUNA_GRPC_HOST"):
                running = await stack.enter_async_context(running_core(settings, gate, reloader))
            places.append(f"gRPC on {running.address}")
            if settings.metrics_host:
                async with _listening(settings.metrics_host, "PUNA_METRICS_HOST"):
                    metrics = _serving_metrics(settings, running, gate)
                    places.append(f"metrics on {await stack.enter_async_context(metrics)}")
        if rest:
            from puna.auth.gate import REACHABLE
            from puna.cli.client import open_channel
            from puna_rest.app import bridging

            channel = running.channel if running else None
            if channel is None:
                # The callers' keys are passed on, so the channel has none of its own.
                pair = ((REACHABLE, "1"),) if reachable else ()
                place = open_channel(settings, target or settings.grpc_host, with_key=False, pairs=pair)
                channel = await stack.enter_async_context(place)
            bridge = bridging(
                channel,
                host=settings.host,
                port=settings.port,
                origins=settings.origins,
                allowed_hosts=settings.allowed_hosts,
                limits=settings.limits,
                tls=tls.ServerContext(files).current if (files := access.tls_files(settings)) else None,
                drain_seconds=BRIDGE_SECONDS if running else seconds,
                metrics=settings.rest_metrics,
                dashboard=settings.dashboard,
                is_leaving=(lambda: running.activity.leaving) if running else stop.is_set,
            )
            async with _listening(f"{settings.host}:{settings.port}", "OLLAMA_HOST"):
                url = await stack.enter_async_context(bridge)
            places.insert(0, f"REST on {url}")
        works = running is None or await asyncio.to_thread(report_broken, running.backends, settings.default_backend)
        # Modules live as long as the server. Frozen, they are not visited by any later collection.
        gc.freeze()
        gc.enable()
        # Not earlier: imports during the start are long turns of the loop and delay no request.
        stack.enter_context(watching(settings.limits.max_loop_seconds))
        # Before the ready line: a program that waits for the line may send a signal at once and expects the graceful
        # stop.
        again = partial(loop.call_soon_threadsafe, reloader.start)
        signals.expect(lambda: loop.call_soon_threadsafe(stop.set), again if core else None)
        print(("Puna is ready: " if works else "Puna runs, but can run no model: ") + ", ".join(places), flush=True)
        await stop.wait()
        log.info("ending: requests have %g s to finish; a second signal ends them at once", delay + seconds)
        if running is not None:
            await running.activity.drain(seconds, delay)
        elif delay:
            await asyncio.sleep(delay)
        # The contexts close below. A host or a library that hangs there must not keep the process alive.
        signals.end_within(CLOSING_SECONDS if running else seconds + CLOSING_SECONDS)


@asynccontextmanager
async def _serving_metrics(settings: Settings, running: "RunningCore", gate: "Gate | None") -> AsyncGenerator[str]:
    """Serve the metrics of a core until the context ends; yield the URL."""
    from puna.metrics.server import serving

    assert running.metrics is not None
    async with serving(running.metrics, settings.metrics_host, gate) as url:
        yield url


def report_broken(backends: "Registry", default: str) -> bool:
    """Log each broken backend with the reason. Return whether a backend works.

    A missing library is a warning only for the `default` backend, which PUNA_BACKEND names, because an installation
    rarely needs every backend. If no backend works, each reason is an error.
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
    """Create the store if it is missing, and remove leftovers. OSError: it cannot be created or read."""
    from puna.demo.install import install_in_new_store

    root = store.root
    try:
        # A link to a disk that is not mounted must be an error, not an empty store.
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
    # No request runs yet, so nothing can be using what is removed.
    store.prune()


@dataclass(frozen=True, slots=True)
class RunningCore:
    """A running core."""

    channel: "grpc.aio.Channel"
    """Channel to the core within this process."""
    address: str
    """Address of its gRPC server."""
    activity: "Activity"
    """Its requests, which are drained before it stops."""
    backends: "Registry"
    """Installed backends."""
    metrics: "Callable[[], bytes] | None"
    """Returns its metrics; None if they are off."""


@asynccontextmanager
async def running_core(
    settings: Settings, gate: "Gate | None" = None, reloader: Reloader | None = None
) -> AsyncGenerator[RunningCore]:
    """Run the core until the context ends. On exit, the server stops and then all models are unloaded.

    `gate` decides about calls; without one every caller may do everything. `reloader` reads the configuration again
    when a caller asks for it.
    """
    from puna.batch.core import Batches
    from puna.diagnostics.diagnostics import Diagnostics, policy
    from puna.models.store import ModelStore
    from puna.plugins import Registry
    from puna.rpc.authorization import Admission
    from puna.rpc.batch_items import ItemPerformer
    from puna.rpc.credentials import server_credentials
    from puna.rpc.inprocess import InProcessChannel
    from puna.rpc.server import add_services, serving
    from puna.runtime.pool import ModelPool
    from puna.sandbox.sandbox import Sandbox
    from puna.serving.core import Serving
    from puna.serving.installed_backends import InstalledBackends
    from puna.serving.preload import Preloader

    sandbox = Sandbox(settings.limits)
    backends = Registry.discover(settings)
    store = ModelStore(
        settings.models,
        no_prune=settings.no_prune,
        go_template=settings.go_template,
        read_template=sandbox.facts,
        backends=InstalledBackends(backends, settings),
    )
    await asyncio.to_thread(_open, store)
    batches = Batches(settings.batches, settings.limits)
    diagnostics = Diagnostics(await asyncio.to_thread(policy, settings), settings.limits)
    # The order of leaving is the reverse: first no more calls, then batches, the models, and the workers of templates.
    async with (
        sandbox,
        ModelPool(backends, settings) as pool,
        batches.running(
            (core := Serving(store, pool, settings, backends, sandbox)).activity, ItemPerformer(core, gate)
        ),
        diagnostics.keeping(core.activity.entries),
        serving(
            core,
            settings.grpc_host,
            uds=core_socket.prepared,
            gate=gate,
            credentials=server_credentials(files) if (files := access.tls_files(settings)) else None,
            batches=batches,
            diagnostics=diagnostics,
        ) as address,
        InProcessChannel(Admission(gate, bridge=True) if gate else None) as channel,
        access.saving(gate),
    ):
        core.reload = reloader.reload if reloader is not None else None
        # The same servicers as behind the socket, so the bridge sees the public API.
        add_services(core, cast("grpc.aio.Server", channel), batches, diagnostics)
        with _measured(core, pool, settings):
            async with Preloader(core).running() as preloader:
                if reloader is not None:
                    reloader.listeners += [pool.adopt_settings, preloader.start]
                yield RunningCore(cast("grpc.aio.Channel", channel), address, core.activity, backends, core.metrics)


@contextmanager
def _measured(core: "Serving", pool: "ModelPool", settings: Settings) -> Generator[None]:
    """Collect metrics while the context lasts, if they are on.

    For the dashboard alone they begin with its first question: most servers are never looked at.
    """
    started: list[Metrics] = []

    def text() -> bytes:
        if not started:
            started.append(_metrics(core, pool, settings))
        return started[0].text()

    if settings.metrics_host or settings.rest_metrics:
        text()
    if started or settings.dashboard:
        core.metrics = text
    try:
        yield
    finally:
        for each in started:
            each.close()


def _metrics(core: "Serving", pool: "ModelPool", settings: Settings) -> "Metrics":
    # Not earlier: a server without metrics need not import the library.
    from puna.metrics.collector import Metrics

    return Metrics(core.activity.entries, pool.loaded, settings.metrics_prefix, nodes=pool.nodes)
