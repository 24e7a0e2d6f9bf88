"""Launching a model: in a host process of its own, or in this process if its backend allows that."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from puna.backend import Backend, LoadedModel
from puna.blocking import stoppable
from puna.errors import BackendCrashedError, LoadFailedError, OutOfMemoryError
from puna.host import inprocess
from puna.plugins import Registry
from puna.runtime import backend_options, host_model, memory
from puna.runtime.heartbeat import HangTimeouts
from puna.runtime.requirements import Loading, ModelRequirements, OnProgress
from puna.runtime.sockets import Sockets
from puna.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launched:
    """A loaded model and where it runs."""

    model: LoadedModel
    backend: str
    pid: int
    """Process id of its host; 0 if it has none."""


class Launcher:
    """Chooses the backend of a model, checks the files and options, and loads it."""

    def __init__(self, backends: Registry, settings: Settings, sockets: Sockets) -> None:
        """`sockets` gives each host the path on which it listens."""
        self._backends = backends
        self._settings = settings
        self._sockets = sockets

    async def checked(self, requirements: ModelRequirements) -> ModelRequirements:
        """Return the requirements with the checked options of the backend that will serve the model.

        The check comes before any queue, so that a refused request evicts nothing. Raises InvalidRequestError if an
        option is unknown, out of range or the operator's alone.
        """
        # Choosing the backend may import plugins in a thread. Most requests set no option and need none of that.
        if not requirements.backend_options:
            return requirements
        name, backend = await asyncio.to_thread(self._backend, requirements)
        options = backend_options.of_request(name, backend, requirements.backend_options.get(name, {}))
        return replace(requirements, spec=replace(requirements.spec, backend_options=options))

    async def launch(
        self, requirements: ModelRequirements, on_progress: OnProgress, *, on_death: Callable[[], None]
    ) -> Launched:
        """Load a model. `on_death` is called if its host dies later.

        Raises what `host_model.load` raises, BackendNotFoundError if no plugin serves the model, and DamagedModelError
        if a file is not what it was. Files are read completely only after a load has failed, since that takes long.
        """
        name, backend = await asyncio.to_thread(self._backend, requirements)
        # A missing or changed file is reported here by its name; the backend's own error would not tell which.
        await stoppable(lambda stopped: requirements.verify(thorough=False, stopped=stopped))
        try:
            return await self._launched(name, backend, requirements, on_progress, on_death)
        # The files are not to blame for a lack of memory, so they are not read.
        except OutOfMemoryError:
            raise
        except (LoadFailedError, BackendCrashedError):
            await stoppable(lambda stopped: requirements.verify(thorough=True, stopped=stopped))
            raise

    async def _launched(
        self,
        name: str,
        backend: Backend,
        requirements: ModelRequirements,
        on_progress: OnProgress,
        on_death: Callable[[], None],
    ) -> Launched:
        log.info("loading %s with %s", requirements.name, name)

        def report(fraction: float) -> None:
            on_progress(Loading(fraction))

        given = self._settings.backend_options.get(name, {})
        configured = backend_options.of_operator(name, backend, given, kernels=self._settings.kernels)
        # The request wins where both set an option; it may set only those that the backend declares for requests.
        options = {**configured, **requirements.spec.backend_options}
        spec = replace(requirements.spec, memory_bytes=memory.free_bytes(), backend_options=options)
        # Such a backend is pure asyncio code, so a process of its own would protect nothing and cost memory.
        if not backend.needs_host:
            return Launched(await inprocess.load(backend, spec, report), name, 0)
        stall_seconds = self._settings.load_timeout
        limits = self._settings.limits
        model = await host_model.load(
            name,
            spec,
            self._sockets.next(),
            report=report,
            stall_seconds=stall_seconds,
            on_death=on_death,
            timeouts=HangTimeouts(limits.max_host_silence_seconds, limits.max_step_seconds),
        )
        return Launched(model, name, model.pid)

    def _backend(self, requirements: ModelRequirements) -> tuple[str, Backend]:
        """Choose the backend. Importing a plugin may take long, so the callers run this in a thread."""
        name = self._backends.for_model(requirements.format, requirements.backend, self._settings.default_backend)
        return name, self._backends.get(name)
