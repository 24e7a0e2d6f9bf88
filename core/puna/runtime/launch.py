"""Launching a model: its backend is chosen, its files and options are checked, and a host process loads it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from puna.backend import LoadedModel, ModelSpec
from puna.backend.v1 import backend_pb2 as wire
from puna.blocking import in_thread, stoppable
from puna.errors import BackendCrashedError, BackendNotFoundError, LoadFailedError, OutOfMemoryError
from puna.host import convert
from puna.limits import Limits
from puna.plugins import Manifest, Plugin, Registry
from puna.runtime import backend_options, model_folders
from puna.runtime.back_off import LoadBackOff, attempt_of
from puna.runtime.errors import HostFailedError, HostKilledError, NodeError
from puna.runtime.heartbeat import HangTimeouts
from puna.runtime.host_connection import HostConnection
from puna.runtime.host_loading import HostLoader, localize
from puna.runtime.host_resources import resources_for
from puna.runtime.hosted_model import HostedModel
from puna.runtime.launcher import Launcher, OnTransfer
from puna.runtime.loads_under_way import NO_TURN, LoadTurn
from puna.runtime.requirements import Loading, ModelRequirements, OnProgress
from puna.runtime.shared_host import weights_of
from puna.runtime.sockets import Sockets
from puna.settings import Settings

log = logging.getLogger(__name__)


class LoadInHost(Protocol):
    """Loads a model in a host. It is `HostLoader.load` except in tests, whose models may run in their own process."""

    async def __call__(
        self,
        backend: Plugin,
        spec: ModelSpec,
        *,
        report: Callable[[float], None],
        stall_seconds: float,
        on_death: Callable[[], None],
        timeouts: HangTimeouts,
        limits: Limits,
        on_transfer: OnTransfer,
        on_placed: Callable[[], None],
        alone: bool,
    ) -> HostedModel:
        """Load a model. See `HostLoader.load`."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A loaded model and where it runs."""

    model: LoadedModel
    backend: str
    pid: int
    """Process id of its host; 0 if it has none."""
    takes_memory: bool = True
    """Whether it takes memory of this machine."""
    node: str = ""
    """Address of the node on which its host runs; empty: this machine."""
    process_id: int = 0
    """Process id of its host on the host's machine."""
    shares_host: bool = False
    """True if the host runs all models of its backend."""
    folder: str = ""
    """The folder of its opaque files, to be removed once the model is freed; empty if it has none."""


@dataclass(frozen=True, slots=True)
class _Caller:
    """The calls by which a launch tells its caller what happens, and the load turn of the caller."""

    on_progress: OnProgress
    on_death: Callable[[], None]
    turn: LoadTurn


class ModelLauncher:
    """Chooses the backend of a model, checks the files and options, and loads it."""

    def __init__(
        self,
        backends: Registry,
        settings: Settings,
        sockets: Sockets,
        launcher: Launcher,
        load: LoadInHost | None = None,
    ) -> None:
        """`sockets` names folders for opaque files, `launcher` starts hosts, and `load` loads a model in one."""
        self._backends = backends
        self._settings = settings
        self._sockets = sockets
        self._launcher = launcher
        self._hosts = HostLoader(launcher, self._gpus)
        self._load = load or self._hosts.load
        self._back_off = LoadBackOff(settings.limits.max_load_pause_seconds)

    def listing_backends(self) -> list[str]:
        """Return the names of the backends that offer models and are configured for it."""
        return [
            each.name
            for each in self._backends.describe()
            if not each.error
            and each.usable.capabilities.lists_models
            # A backend that lacks a required option has no upstream to ask.
            and set(each.usable.required_options) <= self._settings.backend_options.get(each.name, {}).keys()
        ]

    async def listing_options(self, name: str) -> tuple[Plugin, dict[str, object]]:
        """Return a backend, and the options with which it looks for its models.

        Raises BackendNotFoundError, and LoadFailedError for a wrong option.
        """
        backend = self._backends.get(name)
        # In a thread, because the first check of all imports a library, and a secret may be in a file.
        return backend, await asyncio.to_thread(backend_options.for_host, backend.usable, self._settings)

    async def connect(self, backend: Plugin) -> HostConnection:
        """Return a connection to a host without a model. The caller releases it. Raises HostFailedError."""
        label = f"the list of {backend.name}"
        return await self._hosts.connect(backend, label, limits=self._settings.limits)

    async def checked(self, requirements: ModelRequirements) -> ModelRequirements:
        """Return the requirements with the checked options of the backend that will serve the model.

        The check comes before any queue, so that a refused request evicts nothing. Raises InvalidRequestError if an
        option is unknown, out of range or the operator's alone, and HostFailedError if the host has died too often
        while it loaded the model.
        """
        # Most requests set no option and need none of this.
        if not requirements.backend_options:
            await self._check_back_off(requirements)
            return requirements
        await asyncio.to_thread(self._backends.refresh)
        backend = self._backend(requirements)
        given = requirements.backend_options.get(backend.name, {})
        # In a thread, because the first check of all imports a library.
        options = await asyncio.to_thread(backend_options.of_request, backend.usable, given) if given else {}
        # The request wins over the model, whose options are checked when it is loaded.
        merged = {**requirements.spec.backend_options, **options}
        requirements = replace(requirements, spec=replace(requirements.spec, backend_options=merged))
        await self._check_back_off(requirements)
        return requirements

    async def _check_back_off(self, requirements: ModelRequirements) -> None:
        # There is a record only after a load has failed, so that other requests look at no file.
        if self._back_off:
            # The plugin may have been repaired during the pause.
            await asyncio.to_thread(self._backends.refresh)
            self._back_off.check(await asyncio.to_thread(attempt_of, requirements, self._backend(requirements)))

    @property
    def machines(self) -> int:
        """Number of machines on which models may run."""
        return self._launcher.machines

    def has_room(self, requirements: ModelRequirements) -> bool:
        """Return whether the launcher has a place for the model's host; see `Launcher.has_room`."""
        backend, gpus = self._backend(requirements), self._gpus(requirements.name)
        return self._launcher.has_room(resources_for(backend, requirements.spec, requirements.file_bytes, gpus))

    def _gpus(self, name: str) -> float | None:
        """Return how many GPUs the settings give a model; None: as many as it needs."""
        return self._settings.model_settings.of(name).gpus

    def weights(self, requirements: ModelRequirements) -> str:
        """Return what a model can share with other models of a host: its backend and weights; empty if nothing.

        Raises BackendNotFoundError.
        """
        backend = self._backend(requirements)
        weights = "" if requirements.alone or not backend.usable.host.shares_weights else weights_of(requirements.spec)
        return f"{backend.name} {weights}" if weights else ""

    def free_bytes(self) -> int:
        """Return the bytes of memory that a further model can take; 0 if that is not known."""
        return self._launcher.free_bytes()

    def backend_name(self, requirements: ModelRequirements) -> str:
        """Return the name of the backend that will serve the model; empty if there is none."""
        try:
            return self._backend(requirements).name
        except BackendNotFoundError:
            return ""

    async def manifest(self, requirements: ModelRequirements) -> Manifest:
        """Return the manifest of the backend that would load a model now. Raises BackendNotFoundError."""
        await asyncio.to_thread(self._backends.refresh)
        return self._backend(requirements).usable

    @asynccontextmanager
    async def estimating(
        self, requirements: ModelRequirements, freed_bytes: int, *, weights_loaded: bool
    ) -> AsyncGenerator[tuple[HostConnection, wire.LoadRequest]]:
        """Start a host that estimates the memory of a model, and yield it with the request that would load the model.

        `freed_bytes` is the memory that evictions would free before, and `weights_loaded` says whether the model would
        share the weights of a loaded one. The host ends with the block. Raises what `launch` raises before a host
        loads.
        """
        backend = self._backend(requirements)
        await stoppable(lambda stopped: requirements.verify(thorough=False, stopped=stopped))
        spec = replace(await self._complete_spec(backend, requirements), name=requirements.name)
        memory_bytes = spec.memory_bytes and spec.memory_bytes + freed_bytes
        spec = replace(spec, memory_bytes=memory_bytes, weights_loaded=weights_loaded)
        async with AsyncExitStack() as stack:
            if spec.files:
                folder = self._sockets.next().with_suffix(".files")
                stack.callback(model_folders.remove, str(folder))
                spec = await in_thread(model_folders.place, spec, folder)
            label = f"an estimate of {requirements.name}"
            host = await self._hosts.connect(backend, label, limits=self._settings.limits)
            stack.push_async_callback(host.release)
            spec = await localize(host, spec, lambda *_: None, self._stall_seconds(requirements))
            yield host, convert.spec_to_wire(backend.name, spec, host.model_id)

    def takes_memory(self, requirements: ModelRequirements) -> bool:
        """Return whether the model will take memory of this machine. Raises BackendNotFoundError."""
        return self._backend(requirements).usable.host.memory

    async def launch(
        self,
        requirements: ModelRequirements,
        on_progress: OnProgress,
        *,
        on_death: Callable[[], None],
        turn: LoadTurn = NO_TURN,
    ) -> Launched:
        """Load a model. `on_death` is called if its host dies later.

        Raises what `HostLoader.load` raises, BackendNotFoundError if no plugin serves the model, and DamagedModelError
        if a file is not what it was.
        """
        # What was installed, upgraded or removed meanwhile counts from this load on.
        await asyncio.to_thread(self._backends.refresh)
        backend = self._backend(requirements)
        # A missing or changed file is reported here by its name; the backend's own error would not tell which.
        await stoppable(lambda stopped: requirements.verify(thorough=False, stopped=stopped))
        # Before the load, so that a file which is changed meanwhile counts as another attempt.
        attempt = await asyncio.to_thread(attempt_of, requirements, backend)
        try:
            launched = await self._placed(backend, requirements, _Caller(on_progress, on_death, turn))
        except HostFailedError as error:
            self._back_off.failed(attempt, str(error))
            raise
        self._back_off.succeeded(attempt)
        return launched

    async def _placed(self, backend: Plugin, requirements: ModelRequirements, caller: _Caller) -> Launched:
        """Load a model, whose own files, if it has any, lie in a folder under their names."""
        if not requirements.spec.files:
            return await self._verified(backend, requirements, caller)
        folder = self._sockets.next().with_suffix(".files")
        try:
            placed = replace(requirements, spec=await in_thread(model_folders.place, requirements.spec, folder))
            launched = await self._verified(backend, placed, caller)
        except BaseException:
            model_folders.remove(str(folder))
            raise
        return replace(launched, folder=str(folder))

    async def _verified(self, backend: Plugin, requirements: ModelRequirements, caller: _Caller) -> Launched:
        """Load a model. If that fails, read its files completely, which takes long, before the backend is blamed."""
        try:
            return await self._launched_or_again(backend, requirements, caller)
        # The files are not to blame for a lack of memory or of a machine, so they are not read.
        except (OutOfMemoryError, NodeError):
            raise
        except (LoadFailedError, BackendCrashedError):
            await stoppable(lambda stopped: requirements.verify(thorough=True, stopped=stopped))
            raise

    async def _launched_or_again(self, backend: Plugin, requirements: ModelRequirements, caller: _Caller) -> Launched:
        """Load a model, and do so once more if its host is killed meanwhile: alone, for memory may have been short.

        A second kill is an error, since a model for which there is no memory would have its hosts killed for ever.
        """
        try:
            return await self._launched(backend, requirements, caller)
        except HostKilledError as error:
            log.warning("%s: %s; the model is loaded once more", requirements.name, error)
        await caller.turn.alone()
        return await self._launched(backend, requirements, caller)

    async def _launched(self, backend: Plugin, requirements: ModelRequirements, caller: _Caller) -> Launched:
        log.info("loading %s with %s", requirements.name, backend.name)
        # A backend may take long to report a fraction, or report none. Requests no longer wait in the queue meanwhile.
        caller.on_progress(Loading(0.0))
        limits = self._settings.limits
        spec = await self._complete_spec(backend, requirements)
        spec = replace(spec, name=requirements.name, memory_bytes=caller.turn.free(spec.memory_bytes))
        model = await self._load(
            backend,
            spec,
            report=lambda fraction: caller.on_progress(Loading(fraction)),
            stall_seconds=self._stall_seconds(requirements),
            on_death=caller.on_death,
            timeouts=HangTimeouts(limits.max_host_silence_seconds, limits.max_step_seconds),
            limits=limits,
            on_transfer=lambda done, total: caller.on_progress(Loading(0.0, done, total)),
            on_placed=caller.turn.placed,
            alone=requirements.alone,
        )
        return Launched(
            model,
            backend.name,
            model.pid,
            takes_memory=backend.usable.host.memory,
            node=model.node,
            process_id=model.process_id,
            shares_host=backend.usable.host.shared,
        )

    def _stall_seconds(self, requirements: ModelRequirements) -> float:
        """Return how long a load may make no progress."""
        own = self._settings.model_settings.of(requirements.name).load_timeout
        return self._settings.load_timeout if own is None else own

    async def _complete_spec(self, backend: Plugin, requirements: ModelRequirements) -> ModelSpec:
        """Return what the host is told: the spec with all options and the free memory.

        Raises LoadFailedError for a wrong option of the operator or the model.
        """
        spec = requirements.spec
        # In a thread, because the first check of all imports a library, and a secret may be in a file.
        options = await asyncio.to_thread(
            backend_options.for_host, backend.usable, self._settings, spec.backend_options, requirements.name
        )
        return replace(spec, memory_bytes=self.free_bytes(), backend_options=options)

    def _backend(self, requirements: ModelRequirements) -> Plugin:
        """Choose the backend. Raises BackendNotFoundError."""
        name = self._backends.for_model(requirements.format, requirements.backend, self._settings.default_backend)
        return self._backends.get(name)
