"""Estimates of the memory that a model would take, and whether it would fit.

A host without a model is started for each question and ends with it, so nothing of an estimate stays in memory. The
backend gets the same specification as for a load. The longest context that fits is found by bisection, which takes one
call of the host for each step; the backend keeps what it has read of the files meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from puna.backend import MemoryEstimate, UnsupportedError
from puna.backend.v1 import backend_pb2 as wire
from puna.errors import BackendFailedError, QueueFullError
from puna.host.convert_memory import estimate_from_wire
from puna.runtime.host_answers import check_estimate
from puna.runtime.host_connection import HostConnection, translating_errors
from puna.runtime.keep_alive import PooledModel
from puna.runtime.launch import ModelLauncher
from puna.runtime.loader import Loader
from puna.runtime.requirements import LoadedEntry, ModelRequirements
from puna.settings import Settings

ESTIMATE_SECONDS: Final = 60.0
"""How long a backend may take for all answers to one question."""
CONTEXT_STEP: Final = 256
"""The longest context is searched in multiples of so many tokens."""

Ask = Callable[[int], Awaitable[MemoryEstimate]]
"""Returns the estimate for a context length."""


class Fit(Enum):
    """Whether a model fits into memory."""

    UNKNOWN = "unknown"
    FITS = "fits"
    AFTER_EVICTION = "after eviction"
    DOES_NOT_FIT = "does not fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEstimate:
    """The facts of a model that are known before it is loaded."""

    backend: str
    file_bytes: int
    free_bytes: int
    """Free memory of the machine; 0: unknown."""
    evicted: tuple[LoadedEntry, ...] = ()
    """Loaded models that a load would evict now."""
    memory: MemoryEstimate | None = None
    """None: the backend does not tell."""
    fit: Fit = Fit.UNKNOWN
    largest_context_length: int = 0
    """The longest context with which the model fits; 0: none, or unknown."""


@dataclass(frozen=True, slots=True)
class _Room:
    """The memory that a model may take."""

    main: int
    """Main memory, that of evicted models included; 0: unknown."""
    evicted_vram: int
    """Memory of GPUs that evicted models leave."""

    def holds(self, memory: MemoryEstimate) -> bool:
        """Return whether a model fits, as far as that is known."""
        main, gpus = memory.process_bytes, 0
        for each in memory.devices:
            needed = each.weights_bytes + each.kv_cache_bytes + each.compute_bytes
            if not each.device:
                main += needed
            elif each.free_bytes and needed > each.free_bytes:
                gpus += needed - each.free_bytes
        # What lacks on GPUs may come from the models that are evicted, whose GPU is not known.
        return gpus <= self.evicted_vram and (not self.main or main <= self.main)


class MemoryEstimator:
    """Answers how much memory models would take. One question at a time, since each starts a process."""

    def __init__(self, launcher: ModelLauncher, loader: Loader, settings: Settings) -> None:
        self._launcher = launcher
        self._loader = loader
        self._settings = settings
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def estimate(self, requirements: ModelRequirements) -> ModelEstimate:
        """Estimate the memory of a model, without loading it.

        Raises QueueFullError, BackendNotFoundError, HostFailedError if the host does not start, the contract's own
        errors, and BackendFailedError if the backend fails otherwise.
        """
        if self._waiting > self._settings.max_queue:
            raise QueueFullError
        self._waiting += 1
        try:
            async with self._turn:
                return await self._estimate(await self._launcher.checked(requirements))
        finally:
            self._waiting -= 1

    async def _estimate(self, requirements: ModelRequirements) -> ModelEstimate:
        manifest = await self._launcher.manifest(requirements)
        evictions = self._loader.evictions(requirements)
        freed = evictions.freed
        known = ModelEstimate(
            backend=manifest.name,
            file_bytes=requirements.file_bytes,
            free_bytes=self._launcher.free_bytes(),
            evicted=tuple(self._loader.entry(each) for each in evictions.models),
        )
        if not (manifest.capabilities.memory_estimate and manifest.host.memory):
            return known
        room = _Room(known.free_bytes and known.free_bytes + _main(freed), _vram(freed))
        try:
            async with (
                asyncio.timeout(ESTIMATE_SECONDS),
                self._launcher.estimating(requirements, _main(freed), weights_loaded=evictions.weights_loaded) as (
                    host,
                    request,
                ),
            ):

                async def ask(context_length: int) -> MemoryEstimate:
                    request.context_length = context_length
                    return await _answer(host, request)

                memory = await ask(request.context_length)
                largest = await self._largest(ask, memory, room)
        except UnsupportedError:
            return known
        except TimeoutError:
            raise BackendFailedError(f"the backend has given no estimate for {ESTIMATE_SECONDS:g} seconds") from None
        fit = Fit.DOES_NOT_FIT
        if evictions.blocked:
            largest = 0
        elif room.holds(memory):
            fit = Fit.AFTER_EVICTION if evictions.models else Fit.FITS
        # Neither is known where the system does not say how much memory is free.
        if not room.main:
            fit, largest = Fit.UNKNOWN, 0
        return replace(known, memory=memory, fit=fit, largest_context_length=largest)

    async def _largest(self, ask: Ask, memory: MemoryEstimate, room: _Room) -> int:
        """Return the longest context with which the model fits; 0: none."""
        limit = self._settings.limits.max_context_tokens
        longest = min(memory.max_context_length or limit, limit)
        if room.holds(await ask(longest)):
            return longest
        fitting, above = 0, -(-longest // CONTEXT_STEP)
        while above - fitting > 1:
            middle = (fitting + above) // 2
            if room.holds(await ask(middle * CONTEXT_STEP)):
                fitting = middle
            else:
                above = middle
        return fitting * CONTEXT_STEP


def _main(models: Sequence[PooledModel]) -> int:
    return sum(each.size_bytes - each.vram_bytes for each in models)


def _vram(models: Sequence[PooledModel]) -> int:
    return sum(each.vram_bytes for each in models)


async def _answer(host: HostConnection, request: wire.LoadRequest) -> MemoryEstimate:
    async with translating_errors(host):
        answer = await host.stub.EstimateMemory(wire.EstimateMemoryRequest(load=request))
    return check_estimate(estimate_from_wire(answer))
