"""The loaded models: who holds them, who waits for one, and how long they stay."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from puna.errors import OutOfMemoryError, QueueFullError
from puna.plugins import Registry
from puna.runtime import memory, sockets
from puna.runtime.admission import Gate, Line
from puna.runtime.gated import GatedModel
from puna.runtime.keep_alive import Resident, victim
from puna.runtime.launch import Launcher
from puna.runtime.reload import difference
from puna.runtime.wanted import Lease, LoadedEntry, Loading, Queued, Report, Wanted
from puna.settings import Settings

log = logging.getLogger(__name__)

DEFAULT_MAX_LOADED = 3
FILLED = 0.8
"""The part of the free memory that a model's file may take; its cache and buffers come on top."""
SMALLER_CONTEXTS = (32768, 4096)
"""What a context that nobody asked for shrinks to when there is no room."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """A request in the queue. Its future is done once it has its model, or has left."""

    want: Wanted
    report: Report
    given: asyncio.Future[Resident]


class ModelPool:
    """Loads each model once and lends it out. Leaving its context ends every host.

    What is loaded and fits is lent at once. Everything else goes through one queue, and one load happens at a time.
    """

    def __init__(self, backends: Registry, settings: Settings, *, socket_dir: Path | None = None) -> None:
        """`socket_dir`: where the folder of sockets is made; None: in the user's runtime folder."""
        self._backends = backends
        self._settings = settings
        self._socket_dir = socket_dir
        self._residents: dict[str, Resident] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._queue: Line[_Pending] = Line()
        self._arrived = asyncio.Event()
        self._busy = False
        self._exits = ExitStack()

    async def __aenter__(self) -> Self:
        addresses = self._exits.enter_context(sockets.folder(self._socket_dir))
        self._launcher = Launcher(self._backends, self._settings, addresses)
        self._scheduling = asyncio.create_task(self._schedule())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scheduling.cancel()
        await asyncio.wait({self._scheduling})
        while self._queue:
            self._queue.next().given.cancel()
        for resident in list(self._residents.values()):
            self._remove(resident)
        if self._closing:
            await asyncio.wait(self._closing)
        self._exits.close()

    @asynccontextmanager
    async def lease(
        self, want: Wanted, *, keep_alive: float | None = None, priority: int = 0, report: Report = lambda _: None
    ) -> AsyncGenerator[Lease]:
        """Lend a model, loading it first if need be; `report` hears of waiting and loading.

        `keep_alive`: seconds that it stays afterwards, from now on for everybody; infinity: for good; None: as before,
        or as the settings say. Giving up while waiting ends the loading, unless somebody else waits for it too.

        QueueFullError: too many wait. BackendNotFoundError, LoadFailedError: it cannot be loaded. InvalidRequestError:
        the request sets an option of the backend that it may not set.
        """
        began = time.perf_counter_ns()
        want = await self._launcher.checked(want)
        resident = self._fitting(want)
        if resident is None:
            resident = await self._wait(want, priority, report)
        else:
            resident.hold()
        try:
            if keep_alive is not None:
                resident.keep_alive = keep_alive
            yield Lease(
                model=GatedModel(resident.model, resident.gate, lambda position: report(Queued(position))),
                key=want.key,
                backend=resident.backend,
                facts=resident.model.facts,
                load_ns=time.perf_counter_ns() - began,
            )
        finally:
            resident.release(lambda: self._remove(resident))

    async def unload(self, key: str) -> bool:
        """Have a model go as soon as it is idle, and say whether there is one. Waits for nothing."""
        resident = self._residents.get(key)
        if resident is None:
            return False
        resident.keep_alive = 0.0
        resident.rest(lambda: self._remove(resident))
        return True

    def loaded(self) -> list[LoadedEntry]:
        """Return the loaded models, those that expire last first."""
        now = time.time_ns()
        entries = [resident.entry(now) for resident in self._residents.values()]
        return sorted(entries, key=lambda entry: -entry.expires_at_ns)

    def waiting(self) -> int:
        """Return how many requests wait for a model to be loaded."""
        return len(self._queue) + self._busy

    def _fitting(self, want: Wanted) -> Resident | None:
        resident = self._residents.get(want.key)
        if resident is None or resident.leaving:
            return None
        differs = difference(resident.want, resident.backend, resident.model.facts, want)
        if differs:
            log.info("a request needs another %s: %s is loaded anew", differs, resident.want.name)
            return None
        return resident

    async def _wait(self, want: Wanted, priority: int, report: Report) -> Resident:
        """Queue up. The resident that comes back is held."""
        if self.waiting() > self._settings.max_queue:  # one is being served, the others wait
            raise QueueFullError
        pending = _Pending(want, report, asyncio.get_running_loop().create_future())
        ticket = self._queue.join(pending, priority)
        self._tell()
        self._arrived.set()
        try:
            return await pending.given
        except asyncio.CancelledError:
            self._queue.leave(ticket)
            self._tell()
            if not pending.given.cancelled():  # it came in the very moment
                resident = pending.given.result()
                resident.release(lambda: self._remove(resident))
            raise

    async def _schedule(self) -> None:
        while True:
            self._busy = False
            while not self._queue:
                self._arrived.clear()
                await self._arrived.wait()
            self._busy = True
            pending = self._queue.next()
            self._tell()
            await self._serve(pending)

    async def _serve(self, pending: _Pending) -> None:
        """Get a request its model. It may leave meanwhile; then the work goes on only for others of the same model."""

        def report(news: Queued | Loading) -> None:
            for each in self._alike(pending):
                each.report(news)

        work = asyncio.create_task(self._provide(pending.want, report))
        try:
            while not work.done() and (alike := self._alike(pending)):
                futures: set[asyncio.Future[Any]] = {work, *(each.given for each in alike)}
                await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pending.given.cancel()
            raise
        finally:
            work.cancel()
            await asyncio.wait({work})
        if work.cancelled():
            return
        error = work.exception()
        if pending.given.done():  # it has left
            if error is None:
                resident = work.result()
                resident.rest(lambda: self._remove(resident))
        elif error is not None:
            pending.given.set_exception(error)
        else:
            work.result().hold()
            pending.given.set_result(work.result())

    def _alike(self, pending: _Pending) -> list[_Pending]:
        """Return who waits for the same model, those that have left excluded."""
        same = [pending, *(each for each in self._queue if each.want.key == pending.want.key)]
        return [each for each in same if not each.given.done()]

    async def _provide(self, want: Wanted, report: Report) -> Resident:
        """Return a resident that fits, after making room and loading as need be."""
        while (resident := self._fitting(want)) is None:
            if (stale := self._residents.get(want.key)) is not None:
                await self._retire(stale)
            elif self._closing:
                await asyncio.wait(self._closing)  # their memory is needed
            elif len(self._residents) >= (self._settings.max_loaded_models or DEFAULT_MAX_LOADED):
                await self._retire(victim(self._residents.values()))
            elif (idle := self._idle()) and self._lacks_memory(want):
                log.info("%s needs the memory of %s", want.name, victim(idle).want.name)
                await self._retire(victim(idle))
            else:
                return await self._load(want, report)
        return resident

    def _idle(self) -> list[Resident]:
        return [resident for resident in self._residents.values() if not resident.holders]

    def _lacks_memory(self, want: Wanted) -> bool:
        """Say whether a model takes more than a fair part of what is free. Busy models are never asked to go for it."""
        free = memory.free_bytes()
        return 0 < free * FILLED < want.file_bytes

    async def _load(self, want: Wanted, report: Report) -> Resident:
        """Load a model; when there is no room, once more with a smaller context, or with all others gone."""
        try:
            return await self._launch(want, report)
        except OutOfMemoryError:
            smaller = next((size for size in SMALLER_CONTEXTS if size < want.spec.context_length), 0)
            if smaller and "context_length" in want.automatic:
                want = replace(want, spec=replace(want.spec, context_length=smaller))
            elif not self._residents:
                raise
        log.warning("no room for %s: trying once more", want.name)
        for other in list(self._residents.values()):
            await self._retire(other)
        return await self._launch(want, report)

    async def _launch(self, want: Wanted, report: Report) -> Resident:
        launched = await self._launcher.launch(want, report, on_death=lambda: self._died(want.key))
        resident = self._residents[want.key] = Resident(
            want=want,
            backend=launched.backend,
            model=launched.model,
            pid=launched.pid,
            gate=Gate(launched.model.facts.parallel),
            keep_alive=self._settings.keep_alive,
        )
        return resident

    async def _retire(self, resident: Resident) -> None:
        """Let nobody new hold it, and wait until it is gone."""
        resident.leaving = True
        resident.rest(lambda: self._remove(resident))
        await resident.gone.wait()

    def _died(self, key: str) -> None:
        if (resident := self._residents.get(key)) is not None:
            self._remove(resident)

    def _remove(self, resident: Resident) -> None:
        """Forget a model and free it. One that is removed already stays so: its last holder comes after its death."""
        if self._residents.get(resident.want.key) is not resident:
            return
        del self._residents[resident.want.key]
        resident.leaving = True
        resident.stop_timer()
        closing = asyncio.create_task(self._close(resident))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, resident: Resident) -> None:
        try:
            await resident.model.aclose()
        finally:
            resident.gone.set()

    def _tell(self) -> None:
        for position, pending in enumerate(self._queue):
            pending.report(Queued(position + self._busy))
