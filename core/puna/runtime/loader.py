"""Making room for a model and loading it: the scheduler's ModelProvider.

Theory. `_obstacle` names the one model that must go before another can be loaded. In this order: a loaded instance that
does not meet the requirements; models that the configuration excludes beside this one; none more for a model that takes
no memory here; a model when there are too many; an idle model when the file would take too large a part of the free
memory. `provide` asks again after each eviction, since everything may have changed meanwhile, and waits for memory that
is being freed before it evicts a model for memory or for its place. `evictions` asks the same for what would be left.
Whenever the loader must wait for the requests of others, it gives up the load turn meanwhile. A pinned model is evicted
for itself alone, when a request needs it loaded in another way.

A load gives up the turn for good once its host has a place, and others are loaded beside it as long as there is room
for all (`loads_under_way`). A load for which there is not waits with the turn until those under way have ended. So
models are evicted in the same order as if they were loaded one after the other, and none is evicted for memory that a
load is about to take. A load that begins anew gets the turn again.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from puna import events
from puna.errors import BackendNotFoundError, OutOfMemoryError, PunaError
from puna.limits import LARGEST_INT32
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.errors import HostFailedError, NodeLostError, RoomTakenError
from puna.runtime.keep_alive import PooledModel
from puna.runtime.launch import Launched, ModelLauncher
from puna.runtime.loaded_models import LoadedModels
from puna.runtime.loads_under_way import LoadsUnderWay, LoadTurn, LoadUnderWay
from puna.runtime.memory import MAX_FILE_SHARE
from puna.runtime.obstacles import Cause, Evictions, Obstacle, Obstacles
from puna.runtime.reload import difference
from puna.runtime.replica_scaling import ReplicaScaler
from puna.runtime.replicas import Replica, Replicas
from puna.runtime.requirements import LeaseKind, LoadedEntry, Loading, ModelRequirements, OnProgress, Queued
from puna.runtime.scheduling import LoadJob
from puna.settings import Settings

log = logging.getLogger(__name__)

SMALLER_CONTEXTS = (32768, 4096)
"""Context lengths to try when there is no room for the default one."""


class Loader:
    """Provides loaded models to the scheduler."""

    def __init__(self, models: LoadedModels, launcher: ModelLauncher, settings: Settings) -> None:
        self._models = models
        self._launcher = launcher
        self._settings = settings
        self._loads = LoadsUnderWay(settings.limits.max_silent_load_seconds)
        self._obstacles = Obstacles(models, self._loads, launcher, settings)

    def usable(self, requirements: ModelRequirements) -> PooledModel | None:
        """Return the loaded model that meets the requirements; None if it must be loaded, perhaps anew."""
        pooled = self._models.get(requirements.key)
        # An evicting model takes no new lease. Otherwise a steady stream of requests could keep it for ever.
        if pooled is None or pooled.evicting:
            return None
        differs = difference(pooled.requirements, pooled.backend, pooled.model.facts, requirements)
        if differs:
            log.info("a request needs another %s: %s is loaded anew", differs, pooled.requirements.name)
            return None
        return pooled

    def must_wait(self, requirements: ModelRequirements) -> bool:
        """Return whether loads that are under way must end before a model can be loaded."""
        try:
            if not self._loads.all():
                return False
            return self._obstacles.are_loads(requirements, self._obstacles.first(requirements, self._models.all()))
        # The load itself has the error.
        except BackendNotFoundError:
            return False

    def satisfies(self, model: PooledModel, requirements: ModelRequirements) -> bool:
        """Return whether a loaded model meets the requirements of another request."""
        return self.usable(requirements) is model

    def acquire(self, model: PooledModel, kind: LeaseKind) -> None:
        """Count a lease of a model."""
        model.acquire(kind)

    def release(self, model: PooledModel, kind: LeaseKind) -> None:
        """End a lease of a model, and wake the loads that wait for an idle one."""
        model.release(lambda: self._models.remove(model), kind)
        # Only an idle model changes what a waiting load may do.
        if not model.lease_count:
            self._models.notify()

    async def provide(self, requirements: ModelRequirements, job: LoadJob[PooledModel]) -> PooledModel:
        """Return a model that meets the requirements, after making room and loading as needed."""
        while (pooled := self.usable(requirements)) is None:
            obstacle = self._obstacles.first(requirements, self._models.all())
            if self._obstacles.are_loads(requirements, obstacle):
                await self._wait_for_a_load(job)
                continue
            cause = obstacle.cause if obstacle is not None else None
            # Memory that has become free may change what is decided for memory and places.
            if (
                cause not in (Cause.OUTDATED, Cause.EXCLUDED)
                # A model at an upstream needs no room here.
                and self._launcher.takes_memory(requirements)
                and await self._models.wait_for_memory()
            ):
                continue
            if obstacle is not None:
                await self._clear(obstacle, requirements.name, job)
                continue
            pooled = await self._load(requirements, job)
            if pooled.takes_memory:
                # Another load may have finished meanwhile, if this one lost the load turn by its silence.
                self._models.evict_excess(pooled, self._obstacles.most)
            return self._evict_rivals(pooled)
        return pooled

    async def _wait_for_a_load(self, job: LoadJob[PooledModel]) -> None:
        """Wait until a load may have ended. The turn is kept, so that later models take no room before this one."""
        job.keep_turn()
        await self._loads.wait_for_change()
        await job.regain_turn()

    async def _begin_anew(
        self, load: LoadUnderWay, job: LoadJob[PooledModel], obstructed: Callable[[], object]
    ) -> None:
        """Get the load turn again after a failure, and wait as long as other loads obstruct this one."""
        with self._loads.paused(load):
            await job.regain_turn()
            while obstructed():
                await self._wait_for_a_load(job)

    async def _clear(self, obstacle: Obstacle, name: str, job: LoadJob[PooledModel]) -> None:
        """Evict the model that stands in the way of the named one. Raises RoomTakenError if it may not go."""
        model = obstacle.model
        if model is None:
            text = f"pinned models take all {self._obstacles.most} places"
            raise RoomTakenError(f"unable to load model: {text}; OLLAMA_MAX_LOADED_MODELS sets how many there are")
        if obstacle.blocks:
            raise RoomTakenError(f"unable to load model: {name} excludes a model that is pinned")
        if obstacle.cause is Cause.PLACES:
            self._models.evict(model, name)
            # Any model that becomes idle or is removed may leave a place.
            if model.lease_count:
                await job.wait_without_turn(self._models.next_change())
            return
        if obstacle.cause is not Cause.OUTDATED:
            verb = "excludes" if obstacle.cause is Cause.EXCLUDED else "needs the place of"
            log.info("%s %s %s", name, verb, model.requirements.name)
        await self._evict_and_wait(model, job, "" if obstacle.cause is Cause.OUTDATED else name)

    def _evict_rivals(self, pooled: PooledModel) -> PooledModel:
        """Evict the models that were loaded meanwhile although the configuration excludes them beside this one."""
        excluded = self._settings.model_settings.exclude
        for each in self._models.all():
            if each is not pooled and not each.pinned and excluded(pooled.names, each.names):
                self._models.evict(each, pooled.requirements.name)
        return pooled

    def evictions(self, requirements: ModelRequirements) -> Evictions:
        """Return what `provide` would evict now. Changes nothing."""
        return self._obstacles.evictions(requirements)

    @staticmethod
    def entry(pooled: PooledModel) -> LoadedEntry:
        """Return the row of a model in the list of loaded models."""
        return pooled.entry(time.time_ns())

    def _keep_alive(self, name: str) -> float:
        own = self._settings.model_settings.of(name).keep_alive
        return self._settings.keep_alive if own is None else own

    async def _evict_and_wait(self, pooled: PooledModel, job: LoadJob[PooledModel], room_for: str = "") -> None:
        """Evict a model and wait until it is removed. Other jobs have the load turn while it is busy.

        `room_for` is that of LoadedModels.evict.
        """
        self._models.evict(pooled, room_for)
        if pooled.lease_count:
            await job.wait_without_turn(pooled.removed.wait())

    async def _load(self, requirements: ModelRequirements, job: LoadJob[PooledModel]) -> PooledModel:
        """Load a model, and publish it if that fails."""
        try:
            with self._begun(requirements) as load:
                return await self._load_or_retry(requirements, job, load)
        except PunaError as error:
            name, backend = requirements.name, self._launcher.backend_name(requirements)
            events.publish(events.ModelLoadFailed(model=name, backend=backend, reason=error.reason, error=str(error)))
            raise

    def _begun(self, requirements: ModelRequirements) -> AbstractContextManager[LoadUnderWay]:
        """Count a load until the block ends."""
        found = self._obstacles.finds_weights(requirements, self._models.all())
        size = requirements.adapter_bytes if found else requirements.file_bytes
        return self._loads.begun(
            requirements,
            weights=self._obstacles.weights(requirements),
            takes_memory=self._launcher.takes_memory(requirements),
            # As much as leaves the next model's files their share of what both find free.
            bytes_taken=int(size / MAX_FILE_SHARE),
            measured=self._launcher.free_bytes(),
        )

    async def _load_or_retry(
        self, requirements: ModelRequirements, job: LoadJob[PooledModel], load: LoadUnderWay
    ) -> PooledModel:
        """Load a model. When there is no room, try once more with a smaller context, and with others evicted."""

        def report(progress: Queued | Loading) -> None:
            load.note(progress)
            job.report(progress)

        async def alone() -> None:
            await self._begin_anew(load, job, self._loads.in_memory)

        turn = LoadTurn(job.give_up_turn, alone, lambda measured: self._loads.free(measured, load))
        try:
            try:
                return await self._launch(requirements, report, turn)
            except NodeLostError as error:
                log.warning("%s: %s; the model is loaded elsewhere", requirements.name, error)
            # Other nodes may be left.
            await self._begin_anew(load, job, lambda: self._obstacles.are_loads(requirements, None))
            return await self._launch(requirements, report, turn)
        except OutOfMemoryError:
            smaller = next((size for size in SMALLER_CONTEXTS if size < requirements.spec.context_length), 0)
            if smaller and "context_length" in requirements.automatic:
                requirements = replace(requirements, spec=replace(requirements.spec, context_length=smaller))
            # Nothing can be freed and the context cannot be made smaller: a second try would fail in the same way.
            elif not self._models.evictable():
                raise
        log.warning("no room for %s: trying once more", requirements.name)
        await alone()
        for other in self._models.evictable():
            await self._evict_and_wait(other, job, requirements.name)
        await self._models.wait_for_memory()
        # The turn is kept this time: what the estimate says of the memory was wrong.
        return await self._launch(requirements, report, replace(turn, placed=lambda: None))

    async def _launch(self, requirements: ModelRequirements, on_progress: OnProgress, turn: LoadTurn) -> PooledModel:
        dead, pooled = False, None

        # The host may die at any time after the launch, also before the model is in the table.
        def died() -> None:
            nonlocal dead
            dead = True
            if pooled is not None:
                self._lost(pooled, pooled.first)

        began = time.monotonic()
        requirements = self._obstacles.placed(requirements)
        launched = await self._launcher.launch(requirements, on_progress, on_death=died, turn=turn)
        pooled = PooledModel(
            requirements=requirements,
            backend=launched.backend,
            first=_replica(launched, requirements),
            takes_memory=launched.takes_memory,
            shares_host=launched.shares_host,
            weights=self._obstacles.weights(requirements),
            # A request's own keep-alive replaces this default when its lease begins.
            keep_alive=self._keep_alive(requirements.name),
            names={requirements.name},
            pins=lambda names: self._settings.model_settings.pins(names),
            routing=lambda: self._routing(requirements.name),
        )
        self._replicate(pooled)
        self._models.add(pooled)
        seconds = time.monotonic() - began
        events.publish(events.ModelLoaded(model=requirements.name, backend=launched.backend, seconds=seconds))
        # `died` ran before `pooled` existed and could not remove it.
        if dead:
            self._lost(pooled, pooled.first)
        return pooled

    def _routing(self, name: str) -> str:
        return self._settings.model_settings.of(name).routing or self._settings.routing

    def _replicate(self, pooled: PooledModel) -> None:
        """Let a model have replicas if its settings allow more than one."""
        if pooled.shares_host or self._obstacles.replica_count(pooled.requirements.name).most == 1:
            return
        name, blocks = pooled.requirements.name, int(min(self._settings.limits.max_routing_blocks, LARGEST_INT32))
        pooled.replicas = Replicas(name, pooled.first, pooled.routing, max_blocks=blocks)
        pooled.scaler = ReplicaScaler(
            pooled.replicas,
            lambda: self._obstacles.replica_count(name),
            lambda: self._start_replica(pooled),
            longest_pause=self._settings.limits.max_load_pause_seconds,
        )

    def adopt_settings(self) -> None:
        """Take notice of a reload, which may have changed how many replicas loaded models may have."""
        for each in self._models.all():
            if each.replicas is not None:
                each.replicas.crowded.set()
            else:
                self._replicate(each)

    async def _start_replica(self, pooled: PooledModel) -> Replica:
        """Load a model in one more host. Raises what `ModelLauncher.launch` raises, and RoomTakenError."""
        requirements, found, dead = replace(pooled.requirements, alone=True), None, False

        def died() -> None:
            nonlocal dead
            dead = True
            if found is not None:
                self._lost(pooled, found)

        # A further replica takes no room from other models.
        if self._launcher.takes_memory(requirements) and self._obstacles.lacks_memory(requirements, self._models.all()):
            raise RoomTakenError("there is not enough free memory")
        with self._begun(requirements) as load:
            launched = await self._launcher.launch(requirements, load.note, on_death=died)
        found = _replica(launched, requirements)
        if dead:
            await found.aclose()
            raise HostFailedError("its host has ended")
        return found

    def _lost(self, pooled: PooledModel, replica: Replica) -> None:
        """Take notice of the death of a host. With its last host the model is gone."""
        if pooled.replicas is None or not pooled.replicas.lose(replica):
            self._models.remove(pooled, "crashed")
            # Those that wait have not tried yet, so they keep their second attempt.
            replica.limiter.dismiss(replica.limiter.queued)


def _replica(launched: Launched, requirements: ModelRequirements) -> Replica:
    return Replica(
        model=launched.model,
        limiter=ConcurrencyLimiter(launched.model.facts.parallel),
        pid=launched.pid,
        node=launched.node,
        process_id=launched.process_id,
        folder=launched.folder,
        file_bytes=requirements.file_bytes,
    )
