"""Loading models in hosts: each in a host of its own, all models of a backend in one, or those of the same weights.

A manifest says by `shared` that one process serves all models of its backend, and by `shares_weights` that one serves
the models that have the same weights. Such a process starts with the first of its models and ends with the last. Its
models fail together when it dies, and the next load starts another.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

import grpc
import grpc.aio

from puna.backend import ModelFacts, ModelSpec
from puna.backend.v1 import backend_pb2 as wire
from puna.errors import BackendFailedError, LoadFailedError, OutOfMemoryError
from puna.host import convert
from puna.limits import DEFAULT_LIMITS, Limits
from puna.plugins import Plugin
from puna.runtime.errors import HostFailedError, NodeError, NodeFullError, NodeLostError
from puna.runtime.heartbeat import NO_TIMEOUTS, HangTimeouts
from puna.runtime.host_answers import check_facts
from puna.runtime.host_connection import EXIT_SECONDS, HostConnection, connected
from puna.runtime.host_model import HostModel
from puna.runtime.host_process import MIN_READY_SECONDS, READY_SECONDS, end_of
from puna.runtime.host_resources import base_of, resources_of
from puna.runtime.host_rpc import described, error_of
from puna.runtime.launcher import HostRequirements, Launcher, OnTransfer
from puna.runtime.shared_host import SharedHost, weights_of

log = logging.getLogger(__name__)

ENDED_SECONDS: Final = 0.25
"""How much later than an error a node may tell that the host has ended."""


class HostLoader:
    """Loads models, and keeps the hosts that several of them share."""

    def __init__(self, launcher: Launcher, gpus: Callable[[str], float | None] = lambda _: None) -> None:
        """`gpus` returns how many GPUs the operator gives a model of this name; None: as many as it needs."""
        self._launcher = launcher
        self._gpus = gpus
        self._shared: dict[str, SharedHost] = {}
        """The hosts of shared backends, by the backends' names; one may have died."""
        self._by_weights: dict[tuple[str, str], SharedHost] = {}
        """The hosts whose weights further models may share, by backend and weights; one may have died."""
        self._starting: dict[str, asyncio.Lock] = {}
        self._model_ids = map(str, itertools.count(1))

    async def load(
        self,
        backend: Plugin,
        spec: ModelSpec,
        *,
        report: Callable[[float], None],
        stall_seconds: float,
        on_death: Callable[[], None],
        timeouts: HangTimeouts = NO_TIMEOUTS,
        limits: Limits = DEFAULT_LIMITS,
        on_transfer: OnTransfer = lambda *_: None,
        on_placed: Callable[[], None] = lambda: None,
        alone: bool = False,
    ) -> HostModel:
        """Load a model. Cancelling ends the host, unless others share it.

        `alone` keeps the weights in a host of their own, although the backend could share them with other models.
        `on_placed` is called once the host has a machine, `on_transfer` while files are brought there, `report` with
        the fractions that follow, and `on_death` if the host dies after the load, or hangs and is killed.

        Raises OutOfMemoryError if there is no room, HostKilledError if the host is killed, HostFailedError if it ends
        otherwise or makes no progress for `stall_seconds`, and LoadFailedError if its backend refuses or speaks another
        version of the contract.
        """
        # Whatever fails or is cancelled below undoes the steps before it, in reverse order.
        async with AsyncExitStack() as undo:
            shared, weights = None, ""
            if backend.usable.host.shares_weights and not alone and (weights := weights_of(spec)):
                shared = self._by_weights.get((backend.name, weights))
            if shared is not None and shared.usable and shared.backend == backend:
                host = shared.join(next(self._model_ids))
                on_placed()
                spec = await self._localized(host, spec, on_transfer, stall_seconds)
            else:
                host, spec = await self._placed(backend, spec, stall_seconds, limits, on_transfer, on_placed)
                shared = SharedHost(backend, host) if weights else None
                host = shared.join("") if shared is not None else host
            undo.push_async_callback(host.release)
            request = convert.spec_to_wire(backend.name, spec, host.model_id)
            facts, description = await _load(host, request, report, stall_seconds)
            embeds_in_run = description.embeds_in_run
            model = HostModel(host, facts, on_death, limits, timeouts, embeds_in_run=embeds_in_run)
            # From here on `model.aclose` releases the host as well, in the right order.
            undo.pop_all()
            undo.push_async_callback(model.aclose)
            await model.connect()
            undo.pop_all()
        if shared is not None:
            # Only now, since a load that fails or stalls may end the process.
            self._by_weights = {key: each for key, each in self._by_weights.items() if each.usable}
            self._by_weights[backend.name, weights] = shared
        return model

    async def _placed(
        self,
        backend: Plugin,
        spec: ModelSpec,
        stall_seconds: float,
        limits: Limits,
        on_transfer: OnTransfer,
        on_placed: Callable[[], None],
    ) -> tuple[HostConnection, ModelSpec]:
        """Return a host on a machine that has the files of a model, and the specification with their paths there.

        A node without room for the files is passed over.
        """
        full: set[str] = set()
        while True:
            name, avoid = spec.name or spec.path, frozenset(full)
            host = await self.connect(backend, name, stall_seconds, limits, spec, avoid, on_placed)
            # One that runs already has its place.
            on_placed()
            try:
                return host, await self._localized(host, spec, on_transfer, stall_seconds)
            except NodeFullError as error:
                full.add(host.process.node)
                if len(full) >= self._launcher.machines:
                    raise
                log.warning("%s; %s is loaded elsewhere", error, spec.name)

    @staticmethod
    async def _localized(
        host: HostConnection, spec: ModelSpec, on_transfer: OnTransfer, stall_seconds: float
    ) -> ModelSpec:
        """Bring a model's files to the machine of its host. The host is released if that fails."""
        async with AsyncExitStack() as undo:
            undo.push_async_callback(host.release)
            try:
                found = await localize(host, spec, on_transfer, stall_seconds)
            except NodeFullError:
                raise
            except NodeError:
                # A node refuses the files of a host that has ended.
                if not await host.process.died(within=ENDED_SECONDS) or host.process.unreachable:
                    raise
                raise end_of(host.process) from None
            undo.pop_all()
        return found

    async def connect(
        self,
        backend: Plugin,
        label: str,
        stall_seconds: float = math.inf,
        limits: Limits = DEFAULT_LIMITS,
        spec: ModelSpec | None = None,
        avoid: frozenset[str] = frozenset(),
        on_placed: Callable[[], None] = lambda: None,
    ) -> HostConnection:
        """Return a connection to a host of a backend: a new one, or the one that its models share.

        `spec` is the model that it will load; None: it loads none. `avoid` has the addresses of nodes without room for
        its files. `on_placed` is that of HostRequirements. The caller releases the connection.

        Raises HostFailedError if a new host does not start.
        """
        ready_seconds = min(READY_SECONDS, max(stall_seconds, MIN_READY_SECONDS))
        if backend.usable.host.shared:
            return await self._join(backend, ready_seconds, limits)
        needed = HostRequirements(backend=backend, label=label, ready_seconds=ready_seconds, avoid=avoid)
        if spec is not None:
            resources = await asyncio.to_thread(resources_of, backend, spec, self._gpus(spec.name))
            base = await asyncio.to_thread(base_of, spec)
            needed = replace(needed, base=base, resources=resources, on_placed=on_placed)
        return await connected(self._launcher, needed, limits)

    async def _join(self, backend: Plugin, ready_seconds: float, limits: Limits) -> HostConnection:
        """Return a connection to the backend's shared host, starting it if it does not run."""
        async with self._starting.setdefault(backend.name, asyncio.Lock()):
            shared = self._shared.get(backend.name)
            # A plugin that was upgraded meanwhile gets a new host; the old one ends with the last of its models.
            if shared is None or not shared.usable or shared.backend != backend:
                label = f"all models of {backend.name}"
                needed = HostRequirements(backend=backend, label=label, ready_seconds=ready_seconds)
                host = await connected(self._launcher, needed, limits)
                shared = self._shared[backend.name] = SharedHost(backend, host)
            return shared.join(next(self._model_ids))


async def localize(host: HostConnection, spec: ModelSpec, on_transfer: OnTransfer, stall_seconds: float) -> ModelSpec:
    """Bring the files of a model to the host's machine; return the specification with its paths there.

    Raises NodeError after `stall_seconds` without progress.
    """
    loop, most = asyncio.get_running_loop(), 0
    try:
        async with asyncio.timeout(stall_seconds if stall_seconds < math.inf else None) as stalled:

            def progress(done_bytes: int, total_bytes: int) -> None:
                nonlocal most
                if done_bytes > most and stall_seconds < math.inf and not stalled.expired():
                    stalled.reschedule(loop.time() + stall_seconds)
                most = max(most, done_bytes)
                on_transfer(done_bytes, total_bytes)

            return await host.endpoint.localize(spec, progress)
    except TimeoutError:
        text = f"unable to load model: no byte of its files has reached the node for {stall_seconds:g} s"
        raise NodeError(text) from None


async def _load(
    host: HostConnection,
    request: wire.LoadRequest,
    report: Callable[[float], None],
    stall_seconds: float,
) -> tuple[ModelFacts, wire.DescribeResponse]:
    """Wait until the model is loaded; return its facts and the description of the host.

    Each message counts as progress, and each line of output of a host that is not shared.
    """
    loop, process = asyncio.get_running_loop(), host.process
    facts = None
    reported = 0.0

    # Fractions come on two ways, messages and lines of output, and a later one may overtake an earlier one.
    def report_fraction(fraction: float) -> None:
        nonlocal reported
        if reported <= fraction <= 1.0:  # false for NaN too
            reported = fraction
            report(fraction)

    try:
        async with asyncio.timeout(None) as stalled:

            def reset_stall_timer() -> None:
                # The timer may have fired already, in this turn of the loop.
                if stall_seconds < math.inf and not stalled.expired():
                    stalled.reschedule(loop.time() + stall_seconds)

            reset_stall_timer()
            # A library may load for minutes and report no fraction, but print lines.
            if not host.shared:
                process.on_output, process.on_progress = reset_stall_timer, report_fraction
            try:
                description = await described(host.stub, request.backend)
                async for response in host.stub.Load(request):
                    reset_stall_timer()
                    if response.HasField("loaded"):
                        facts = check_facts(convert.facts_from_wire(response.loaded))
                    else:
                        report_fraction(response.fraction)
            finally:
                process.on_output, process.on_progress = lambda: None, lambda _: None
    except TimeoutError:
        # A host that hangs does not end by itself, and waiting for it would only delay the error.
        if not host.shared:
            process.kill()
        # Clients look for Ollama's text, which names its own engine.
        raise HostFailedError(f"timed out waiting for llama-server to start - {process.last_line}") from None
    except BackendFailedError as error:
        raise LoadFailedError(f"unable to load model: {error}") from None
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and await process.died(within=EXIT_SECONDS):
            process.log_last_output()
            if process.unreachable:
                raise NodeLostError(f"unable to load model: {process.explain()}") from None
            raise end_of(process) from None
        kind = OutOfMemoryError if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else LoadFailedError
        raise kind(f"unable to load model: {error_of(error)}") from None
    if facts is None:
        raise LoadFailedError("unable to load model: the host did not say what it loaded")
    return facts, description
