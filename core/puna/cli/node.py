"""`puna node`: model hosts for a core on another machine, and the certificates of a cluster."""

import argparse
import asyncio
import logging
import math
import os
import ssl
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

from puna import request_log
from puna.cli.signals import Signals, finish
from puna.process.cluster_tls import default_folder
from puna.settings import Settings

CLOSING_SECONDS: Final = 15.0
"""Seconds in which a node must end."""

log = logging.getLogger(__name__)


def run(settings: Settings, arguments: argparse.Namespace) -> NoReturn:
    """Run hosts until SIGINT or SIGTERM, and end this process; see `puna.cli.serve.run`."""
    signals = Signals()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    request_log.configure(logging.DEBUG if settings.debug else logging.INFO, settings.log_format)
    host, _, port = arguments.listen.rpartition(":")
    if not (host and port.isdigit()):
        print(f"Error: --listen {arguments.listen!r} is no HOST:PORT", file=sys.stderr)
        finish(2)
    try:
        asyncio.run(_run(settings, signals, arguments, host.removeprefix("[").removesuffix("]"), int(port)))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"Error: {place}{error.strerror or error}", file=sys.stderr)
        finish(1)
    finish(0)


async def _run(settings: Settings, signals: Signals, arguments: argparse.Namespace, host: str, port: int) -> None:
    # Imported here, since the other commands need none of it.
    from puna.node.file_cache import FileCache, default_cache
    from puna.node.serve import running
    from puna.node.supervision import Supervision, unclaimed
    from puna.plugins import Registry

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    certificate: Path | ssl.SSLContext = settings.cluster_tls or default_folder() / "node"
    supervision = Supervision(sys.stdin.buffer) if arguments.supervised else None
    if supervision is not None:
        certificate = await asyncio.to_thread(supervision.context)
    # 0 removes the bound, as it does in the variable.
    limit = settings.limits.max_node_cache_bytes if arguments.cache_bytes is None else arguments.cache_bytes or math.inf
    cache = FileCache(arguments.cache or settings.node_cache or default_cache(), limit)
    shared = [settings.models / "blobs"]
    registry = Registry.discover(settings)
    async with running(registry, certificate, host, port, arguments.lease, cache, shared) as node:
        signals.expect(lambda: loop.call_soon_threadsafe(stop.set))
        print(f"Puna runs hosts: node on {node.address}", flush=True)
        waiting: set[asyncio.Task[Any]] = {asyncio.create_task(stop.wait())}
        if arguments.exit_with_core:
            waiting.add(asyncio.create_task(node.lease.ended.wait()))
        if supervision is not None:
            waiting.add(asyncio.create_task(supervision.ended()))
            waiting.add(asyncio.create_task(unclaimed(node.lease)))
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        signals.end_within(CLOSING_SECONDS)


def certificates(folder: Path | None) -> None:
    """Make the certificates of a cluster, and say where they belong."""
    from puna.process.cluster_certificates import make

    core, node = make(folder or default_folder())
    print(f"core: {core}\nnode: {node}\nCopy the second folder to each node. PUNA_CLUSTER_TLS names the folder.")
