"""The commands `top` and `requests`: the models and requests of a running server, live or once."""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import grpc.aio
from rich import box
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from puna.cli import terminal
from puna.cli.client import connected
from puna.cli.errors import CommandError
from puna.cli.listing import print_json
from puna.cli.tables import human_bytes, relative_time, table
from puna.paging import read_pages
from puna.settings import Settings
from puna_client.v1 import models_pb2, models_pb2_grpc, server_pb2, server_pb2_grpc

PHASES: Final = {
    server_pb2.REQUEST_PHASE_QUEUED: "queued",
    server_pb2.REQUEST_PHASE_LOADING: "loading",
    server_pb2.REQUEST_PHASE_PREFILL: "prefill",
    server_pb2.REQUEST_PHASE_DECODE: "decode",
}
SHORTEST_INTERVAL: Final = 0.1
REQUEST_HEADERS: Final = ("REQUEST", "MODEL", "METHOD", "PHASE", "PLACE", "TOKENS", "SECONDS")
"""The headers of `request_row`."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The models and requests of a server at one time."""

    seconds: float
    """The time, by a monotonic clock."""
    models: Sequence[models_pb2.LoadedModel] = ()
    requests: Sequence[server_pb2.RequestInfo] = ()
    pending: int = 0
    """Number of requests that wait for a model to be loaded."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    """Output tokens of each request, by its id."""


async def snapshot(channel: grpc.aio.Channel) -> Snapshot:
    """Ask a server for its models and requests."""
    models, server = models_pb2_grpc.ModelsServiceStub(channel), server_pb2_grpc.ServerServiceStub(channel)
    loaded, listed = await asyncio.gather(
        read_pages(models.ListLoadedModels, models_pb2.ListLoadedModelsRequest()),
        read_pages(server.ListRequests, server_pb2.ListRequestsRequest()),
    )
    tokens = {each.id: each.output_tokens for each in listed.requests}
    return Snapshot(time.monotonic(), loaded.models, listed.requests, loaded.pending_requests, tokens)


def rates(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """Return the output tokens per second of each model, by the requests that are under way."""
    written: Counter[str] = Counter()
    for each in after.requests:
        written[_name(each.model)] += max(each.output_tokens - before.tokens.get(each.id, 0), 0)
    span = max(after.seconds - before.seconds, SHORTEST_INTERVAL)
    return {model: count / span for model, count in written.items()}


def render(found: Snapshot, speeds: Mapping[str, float], now: float) -> Group:
    """Return the two tables. `now` is in seconds since 1970."""
    models = _table("MODEL", "BACKEND", "SIZE", "RUN", "WAIT", "KV", "TOKENS/S", "UNTIL")
    for each in found.models:
        name = _name(each.model.name)
        models.add_row(
            *(Text(text) for text in (name, each.backend)),
            human_bytes(each.size_bytes) if each.size_bytes else "-",
            str(each.active_requests),
            str(each.queued_requests),
            _cache(each),
            f"{speeds.get(name, 0):.1f}",
            relative_time(max(each.expire_time.ToNanoseconds() / 1e9 - now, 0.0)),
        )
    requests = _table(*REQUEST_HEADERS)
    for request in found.requests:
        requests.add_row(*map(Text, request_row(request, now)))
    running = sum(not each.queue_position for each in found.requests)
    summary = f"{len(found.models)} models, {running} requests run, {len(found.requests) - running} wait"
    waiting = f", {found.pending} of them for a model" if found.pending else ""
    return Group(Text(f"{summary}{waiting}, {sum(speeds.values()):.1f} tokens/s"), Text(), models, Text(), requests)


def _cache(model: models_pb2.LoadedModel) -> str:
    """Return how full the KV cache is; "-" if the backend does not tell."""
    cache = model.kv_cache
    return f"{cache.active_tokens / cache.total_tokens:.0%}" if cache.total_tokens else "-"


def request_row(request: server_pb2.RequestInfo, now: float) -> tuple[str, ...]:
    """Return a request's cells: id, model, method, phase, place in the queue, tokens, seconds since its arrival."""
    return (
        request.id,
        _name(request.model) or "-",
        request.method,
        PHASES.get(request.phase, "-"),
        str(request.queue_position or "-"),
        str(request.output_tokens),
        f"{max(now - request.start_time.ToNanoseconds() / 1e9, 0.0):.1f}",
    )


async def top(settings: Settings, *, interval: float, once: bool) -> None:
    """Show models and requests until Ctrl-C; once, if asked or if the output is no terminal that can erase."""
    console = terminal.console(sys.stdout)
    async with connected(settings) as channel:
        before = await snapshot(channel)
        await asyncio.sleep(max(interval, SHORTEST_INTERVAL))
        found = await snapshot(channel)
        if once or not terminal.interactive(sys.stdout):
            console.print(render(found, rates(before, found), time.time()))
            return
        # Ctrl-C is the usual way to leave.
        with (
            contextlib.suppress(asyncio.CancelledError),
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while True:
                live.update(render(found, rates(before, found), time.time()), refresh=True)
                await asyncio.sleep(max(interval, SHORTEST_INTERVAL))
                before, found = found, await snapshot(channel)


async def requests(settings: Settings, model: str, cancel: Sequence[str], *, as_json: bool) -> None:
    """Print the requests of a model, or of all, oldest first; or cancel some by id. Raises CommandError."""
    async with connected(settings) as channel:
        server = server_pb2_grpc.ServerServiceStub(channel)
        if cancel:
            known = (await server.CancelRequests(server_pb2.CancelRequestsRequest(ids=cancel))).ids
            if missing := [each for each in cancel if each not in known]:
                raise CommandError(f"no such request: {', '.join(missing)}")
            return
        found = (await read_pages(server.ListRequests, server_pb2.ListRequestsRequest(model=model))).requests
    if as_json:
        print_json(found)
        return
    now = time.time()
    print(table(REQUEST_HEADERS, [request_row(each, now) for each in found]))


def _name(model: str) -> str:
    return model.removesuffix(":latest")


def _table(*headers: str) -> Table:
    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    overflow: Literal["ellipsis", "crop"] = "ellipsis" if terminal.can_show("…", sys.stdout) else "crop"
    for header in headers:
        numeric = header in ("RUN", "WAIT", "TOKENS/S", "PLACE", "TOKENS", "SECONDS")
        found.add_column(header, justify="right" if numeric else "left", no_wrap=True, overflow=overflow)
    return found
