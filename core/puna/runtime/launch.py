"""Bringing a model up: in a host of its own, or in this process if its backend may."""

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
from puna.runtime.heartbeat import Patience
from puna.runtime.requirements import Loading, Report, Wanted
from puna.runtime.sockets import Sockets
from puna.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launched:
    """A model that is up."""

    model: LoadedModel
    backend: str
    pid: int
    """Of its host; 0 if it has none."""


class Launcher:
    """Knows which backend serves a model, and where its host listens."""

    def __init__(self, backends: Registry, settings: Settings, sockets: Sockets) -> None:
        """`sockets`: where hosts listen."""
        self._backends = backends
        self._settings = settings
        self._sockets = sockets

    async def checked(self, want: Wanted) -> Wanted:
        """Return `want` with the options for its backend, which is chosen here. InvalidRequestError: one is refused."""
        if not want.backend_options:
            return want
        name, backend = await asyncio.to_thread(self._backend, want)
        options = backend_options.of_request(name, backend, want.backend_options.get(name, {}))
        return replace(want, spec=replace(want.spec, backend_options=options))

    async def launch(self, want: Wanted, report: Report, *, on_death: Callable[[], None]) -> Launched:
        """Load a model. Errors: see `hosts.load`; BackendNotFoundError: no plugin serves it.

        DamagedModelError: a file is not what it was. That is looked for with much effort only when loading has failed.
        """
        name, backend = await asyncio.to_thread(self._backend, want)
        await stoppable(lambda stopped: want.verify(thorough=False, stopped=stopped))
        try:
            return await self._launched(name, backend, want, report, on_death)
        except OutOfMemoryError:
            raise
        except (LoadFailedError, BackendCrashedError):
            await stoppable(lambda stopped: want.verify(thorough=True, stopped=stopped))
            raise

    async def _launched(
        self, name: str, backend: Backend, want: Wanted, report: Report, on_death: Callable[[], None]
    ) -> Launched:
        log.info("loading %s with %s", want.name, name)

        def tell(fraction: float) -> None:
            report(Loading(fraction))

        given = self._settings.backend_options.get(name, {})
        own = backend_options.of_operator(name, backend, given, kernels=self._settings.kernels)
        options = {**own, **want.spec.backend_options}
        spec = replace(want.spec, memory_bytes=memory.free_bytes(), backend_options=options)
        if not backend.needs_host:
            return Launched(await inprocess.load(backend, spec, tell), name, 0)
        stall_seconds = self._settings.load_timeout
        limits = self._settings.limits
        model = await host_model.load(
            name,
            spec,
            self._sockets.next(),
            report=tell,
            stall_seconds=stall_seconds,
            on_death=on_death,
            patience=Patience(limits.max_host_silence_seconds, limits.max_step_seconds),
        )
        return Launched(model, name, model.pid)

    def _backend(self, want: Wanted) -> tuple[str, Backend]:
        """Choose the backend. Importing a plugin may take its time, so this runs in a thread."""
        name = self._backends.for_model(want.format, want.backend, self._settings.default_backend)
        return name, self._backends.get(name)
