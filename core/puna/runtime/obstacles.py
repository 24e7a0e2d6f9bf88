"""Obstacles to the load of a model: the reasons for evictions, and the evictions that a load would cause."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from puna.replica_count import ReplicaCount
from puna.runtime.keep_alive import PooledModel, eviction_candidate, places
from puna.runtime.launch import ModelLauncher
from puna.runtime.loaded_models import LoadedModels
from puna.runtime.loads_under_way import LoadsUnderWay
from puna.runtime.memory import MAX_FILE_SHARE
from puna.runtime.reload import difference
from puna.runtime.requirements import ModelRequirements
from puna.settings import Settings

DEFAULT_MAX_LOADED = 3
"""Models that are loaded at once on each machine if no setting says otherwise."""


@dataclass(frozen=True, slots=True)
class Evictions:
    """The models that a load would evict."""

    models: tuple[PooledModel, ...]
    """The models in the order of their evictions."""
    freed: tuple[PooledModel, ...]
    """The models whose memory the load would find free: those, or the model itself if it need not be loaded anew."""
    blocked: bool = False
    """True if pinned models leave no place, however much memory is free."""
    weights_loaded: bool = False
    """True if the load would find its weights in memory, as those of another model."""


class Cause(Enum):
    """The reason for which a model must go."""

    OUTDATED = auto()
    """It is the same model, loaded in another way."""
    EXCLUDED = auto()
    """The configuration excludes it."""
    PLACES = auto()
    """There are too many models."""
    MEMORY = auto()
    """There is too little memory."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A model that must go before a load, or pinned models that prevent it."""

    cause: Cause
    model: PooledModel | None
    """The model that must go; None: pinned models take all places."""

    @property
    def blocks(self) -> bool:
        """True if no eviction can remove it."""
        return self.model is None or (self.model.pinned and self.cause is not Cause.OUTDATED)


class Obstacles:
    """Finds the obstacles to loads."""

    def __init__(self, models: LoadedModels, loads: LoadsUnderWay, launcher: ModelLauncher, settings: Settings) -> None:
        self._models = models
        self._loads = loads
        self._launcher = launcher
        self._settings = settings

    def first(
        self, requirements: ModelRequirements, models: Sequence[PooledModel], gone: Sequence[PooledModel] = ()
    ) -> Obstacle | None:
        """Return what must be evicted first to load a model beside these; None: nothing.

        `gone`: models that are loaded now and that count as evicted.
        """
        own = next((each for each in models if each.requirements.key == requirements.key), None)
        if own is not None:
            return Obstacle(Cause.OUTDATED, own)
        excluded = self._settings.model_settings.exclude
        if rival := next((each for each in models if excluded({requirements.name}, each.names)), None):
            return Obstacle(Cause.EXCLUDED, rival)
        if not self._launcher.takes_memory(requirements):
            return None
        in_memory = [each for each in models if each.takes_memory]
        evictable = [each for each in in_memory if not each.pinned]
        if not self.finds_weights(requirements, models) and places(in_memory) >= self.most:
            return Obstacle(Cause.PLACES, eviction_candidate(evictable) if evictable else None)
        # Busy models are never evicted for memory.
        idle = [each for each in evictable if not each.lease_count]
        if idle and self.lacks_memory(requirements, models, gone):
            return Obstacle(Cause.MEMORY, eviction_candidate(idle))
        return None

    def are_loads(self, requirements: ModelRequirements, obstacle: Obstacle | None) -> bool:
        """Return whether loads must end before this one can begin, or before it can be said what must go for it."""
        loads = self._loads.all()
        if not loads or (obstacle is not None and obstacle.blocks):
            return False
        weights, excluded = self.weights(requirements), self._settings.model_settings.exclude
        if any(
            (weights and each.weights == weights) or excluded({requirements.name}, {each.requirements.name})
            for each in loads
        ):
            return True
        loads = self._loads.in_memory()
        if not loads or not self._launcher.takes_memory(requirements):
            return False
        if obstacle is not None:
            return obstacle.cause in (Cause.PLACES, Cause.MEMORY)
        models = self._models.all()
        taken = places([*self._models.in_memory(), *loads])
        crowded = not self.finds_weights(requirements, models) and taken >= self.most
        return crowded or self.lacks_memory(requirements, models)

    def evictions(self, requirements: ModelRequirements) -> Evictions:
        """Return what `provide` would evict now. Changes nothing."""
        left, evicted = self._models.all(), list[PooledModel]()
        own = self._models.get(requirements.key)
        if own is not None and not difference(own.requirements, own.backend, own.model.facts, requirements):
            left.remove(own)
            return Evictions((), (own,), weights_loaded=self.finds_weights(requirements, left))
        while obstacle := self.first(requirements, left, evicted):
            if obstacle.model is None or obstacle.blocks:
                break
            evicted.append(obstacle.model)
            left.remove(obstacle.model)
        found = self.finds_weights(requirements, left)
        return Evictions(tuple(evicted), tuple(evicted), blocked=obstacle is not None, weights_loaded=found)

    def lacks_memory(
        self, requirements: ModelRequirements, models: Sequence[PooledModel], gone: Sequence[PooledModel] = ()
    ) -> bool:
        """Return whether a load beside these models takes too much of the free memory, or its host has no place.

        The launcher does not tell whether the host would have a place once others have ended.
        """
        free = self._loads.free(self._launcher.free_bytes())
        free = free and free + sum(each.size_bytes for each in gone)
        if self.finds_weights(requirements, models):
            return _too_large(requirements.adapter_bytes, free)
        return _too_large(requirements.file_bytes, free) or not (gone or self._launcher.has_room(requirements))

    def finds_weights(self, requirements: ModelRequirements, models: Iterable[PooledModel]) -> bool:
        """Return whether a load would find its weights in memory: those of one of these models."""
        weights = self.weights(requirements)
        return bool(weights) and any(each.weights == weights for each in models)

    def weights(self, requirements: ModelRequirements) -> str:
        """Return what identifies the weights that a model may share; empty if it shares none."""
        return self._launcher.weights(self.placed(requirements))

    def placed(self, requirements: ModelRequirements) -> ModelRequirements:
        """Return requirements that say whether the model has a host alone: one with replicas does."""
        return replace(requirements, alone=requirements.alone or self.replica_count(requirements.name).most > 1)

    def replica_count(self, name: str) -> ReplicaCount:
        """Return how many replicas the settings allow a model."""
        return self._settings.model_settings.of(name).replicas or self._settings.replicas

    @property
    def most(self) -> int:
        """Number of models that may be loaded at once."""
        return self._settings.max_loaded_models or DEFAULT_MAX_LOADED * self._launcher.machines


def _too_large(file_bytes: int, free: int) -> bool:
    return 0 < free * MAX_FILE_SHARE < file_bytes
