"""Obstacles to the load of a model: the reasons for evictions, and the evictions that a load would cause."""

from dataclasses import dataclass
from enum import Enum, auto

from puna.runtime.keep_alive import PooledModel


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
