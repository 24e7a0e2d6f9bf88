"""The loaded models: who holds them, who waits for one, and how long they stay."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from puna.errors import OutOfMemoryError, QueueFullError
from puna.plugins import Registry
from puna.runtime import memory, sockets
from puna.runtime.admission import Gate
from puna.runtime.admitted_model import GatedModel
from puna.runtime.keep_alive import Resident, victim
from puna.runtime.launch import Launcher
from puna.runtime.reload import difference
from puna.runtime.requirements import Lease, LoadedEntry, Queued, Report, Use, Wanted
from puna.runtime.scheduling import Scheduler, Turn
from puna.settings import Settings
from puna.traceback_summary import where

log = logging.getLogger(__name__)

DEFAULT_MAX_LOADED = 3
CLOSING_SECONDS = 3.0
"""How long a load waits for the memory of a model that is being freed."""
EXIT_SECONDS = 20.0
"""How long models may take to be freed when the server ends. Hosts are killed long before."""
FILLED = 0.8
"""The part of the free memory that a model's file may take; its cache and buffers come on top."""
SMALLER_CONTEXTS = (32768, 4096)
"""What a context that nobody asked for shrinks to when there is no room."""


class ModelPool:
    """Loads each model once and lends it out. Leaving its context ends every host.

    What is loaded and fits is lent at once. Everything else goes through one queue, and models are loaded in turns.
    """

    def __init__(self, backends: Registry, settings: Settings, *, socket_dir: Path | None = None) -> None:
        """`socket_dir`: where the folder of sockets is made; None: in the user's runtime folder."""
        self._backends = backends
        self._settings = settings
        self._socket_dir = socket_dir
        self._residents: dict[str, Resident] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._stuck: set[asyncio.Task[None]] = set()
        """The part of them that no request waits for any more."""
        self._changed = asyncio.Event()
        """Set, and made anew, whenever a model has become idle or has gone."""
        self._scheduler: Scheduler[Resident] = Scheduler(self, settings.limits.max_silent_load_seconds)
        self._exits = ExitStack()

    async def __aenter__(self) -> Self:
        addresses = self._exits.enter_context(sockets.folder(self._socket_dir))
        self._launcher = Launcher(self._backends, self._settings, addresses)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._scheduler.close()
        for resident in list(self._residents.values()):
            self._remove(resident)
        if self._closing:
            await asyncio.wait(self._closing, timeout=EXIT_SECONDS)
        self._exits.close()

    @asynccontextmanager
    async def lease(
        self,
        want: Wanted,
        *,
        keep_alive: float | None = None,
        priority: int = 0,
        report: Report = lambda _: None,
        use: Use = Use.SEQUENCE,
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
            if self._scheduler.waiting and self._queued() >= self._settings.max_queue:
                raise QueueFullError
            resident = await self._scheduler.wait(want, use, priority, report)
        else:
            if resident.full(use) and self._queued() >= self._settings.max_queue:
                raise QueueFullError
            self.lend(resident, use)
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
            self.give_back(resident, use)

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
        return self._scheduler.waiting

    def _queued(self) -> int:
        """Return how many requests wait for whatever: a load, a place, others' texts. One being served is none."""
        return max(self._scheduler.waiting - 1, 0) + sum(each.waiting for each in self._residents.values())

    # ---- what the scheduler asks for ---------------------------------------------------------------------------------

    def fits(self, made: Resident, want: Wanted) -> bool:
        """Say whether a model does for another request."""
        return self._fitting(want) is made

    def lend(self, made: Resident, use: Use) -> None:
        """Keep a model for a request."""
        made.hold(use)

    def give_back(self, made: Resident, use: Use) -> None:
        """End that."""
        made.release(lambda: self._remove(made), use)
        if not made.holders:
            self._notify()

    async def provide(self, want: Wanted, turn: Turn[Resident]) -> Resident:
        """Return a resident that fits, after making room and loading as need be."""
        while (resident := self._fitting(want)) is None:
            if (stale := self._residents.get(want.key)) is not None:
                await self._retire(stale, turn)
            elif await self._memory_comes():
                continue
            elif len(self._residents) >= self._most:
                await self._make_room(turn)
            elif (idle := self._idle()) and self._lacks_memory(want):
                log.info("%s needs the memory of %s", want.name, victim(idle).want.name)
                await self._retire(victim(idle), turn)
            else:
                resident = await self._load(want, turn)
                self._trim(resident)
                return resident
        return resident

    # ---- models ------------------------------------------------------------------------------------------------------

    @property
    def _most(self) -> int:
        return self._settings.max_loaded_models or DEFAULT_MAX_LOADED

    def _fitting(self, want: Wanted) -> Resident | None:
        resident = self._residents.get(want.key)
        if resident is None or resident.leaving:
            return None
        differs = difference(resident.want, resident.backend, resident.model.facts, want)
        if differs:
            log.info("a request needs another %s: %s is loaded anew", differs, resident.want.name)
            return None
        return resident

    def _idle(self) -> list[Resident]:
        return [resident for resident in self._residents.values() if not resident.holders]

    def _lacks_memory(self, want: Wanted) -> bool:
        """Say whether a model takes more than a fair part of what is free. Busy models are never asked to go for it."""
        free = memory.free_bytes()
        return 0 < free * FILLED < want.file_bytes

    async def _memory_comes(self) -> bool:
        """Wait until models that are being freed are gone; say whether there was anything to wait for.

        One that does not go is not waited for longer than CLOSING_SECONDS, since it may never go.
        """
        freed = {task for task in self._closing if task not in self._stuck}
        if not freed:
            return False
        _, pending = await asyncio.wait(freed, timeout=CLOSING_SECONDS)
        self._stuck |= pending
        return True

    async def _make_room(self, turn: Turn[Resident]) -> None:
        """Have a model go, and wait until it, or another, has. A busy one may take its time."""
        leaving = victim(self._residents.values())
        self._send_away(leaving)
        if leaving.holders:
            await turn.aside(self._changed.wait())

    async def _load(self, want: Wanted, turn: Turn[Resident]) -> Resident:
        """Load a model; when there is no room, once more with a smaller context, or with all others gone."""
        try:
            return await self._launch(want, turn.report)
        except OutOfMemoryError:
            smaller = next((size for size in SMALLER_CONTEXTS if size < want.spec.context_length), 0)
            if smaller and "context_length" in want.automatic:
                want = replace(want, spec=replace(want.spec, context_length=smaller))
            elif not self._residents:
                raise
        log.warning("no room for %s: trying once more", want.name)
        for other in list(self._residents.values()):
            await self._retire(other, turn)
        await self._memory_comes()
        return await self._launch(want, turn.report)

    def _trim(self, loaded: Resident) -> None:
        """Send away what is too many: while a load was slow, others may have been loaded beside it."""
        others = [each for each in self._residents.values() if each is not loaded and not each.leaving]
        while len(others) >= self._most:
            leaving = victim(others)
            others.remove(leaving)
            self._send_away(leaving)

    async def _launch(self, want: Wanted, report: Report) -> Resident:
        dead, resident = False, None

        def died() -> None:  # perhaps before there is a resident
            nonlocal dead
            dead = True
            if resident is not None:
                self._remove(resident)

        launched = await self._launcher.launch(want, report, on_death=died)
        resident = self._residents[want.key] = Resident(
            want=want,
            backend=launched.backend,
            model=launched.model,
            pid=launched.pid,
            gate=Gate(launched.model.facts.parallel),
            keep_alive=self._settings.keep_alive,
        )
        if dead:
            self._remove(resident)
        return resident

    async def _retire(self, resident: Resident, turn: Turn[Resident]) -> None:
        """Lend it to no further request, and wait until it is removed. Others have their turns while it is busy."""
        self._send_away(resident)
        if resident.holders:
            await turn.aside(resident.removed.wait())

    def _send_away(self, resident: Resident) -> None:
        """Lend a model to no further request; it goes when its last request has ended."""
        resident.leaving = True
        resident.rest(lambda: self._remove(resident))

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _remove(self, resident: Resident) -> None:
        """Forget a model and free it. One that is removed already stays so: its last holder comes after its death."""
        if self._residents.get(resident.want.key) is not resident:
            return
        del self._residents[resident.want.key]
        resident.leaving = True
        resident.stop_timer()
        resident.removed.set()
        closing = asyncio.create_task(resident.model.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closed)
        self._notify()

    def _closed(self, closing: asyncio.Task[None]) -> None:
        self._closing.discard(closing)
        self._stuck.discard(closing)
        if not closing.cancelled() and (error := closing.exception()) is not None:
            log.error("a model could not be freed: %s", where(error))
