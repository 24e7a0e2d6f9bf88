"""The list of mutants: what is wrong with each, and the contract test that must notice."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.plugins.mutants.engine import TinyBackend, TinyModel
from tests.plugins.mutants.sampler import Sampler

OVER = threading.Event()
"""Set when the test of a mutant is over, so that threads which it has left behind end."""
BOTH = ("bytes", "words")


@dataclass(frozen=True)
class Mutant:
    """A backend with one fault."""

    name: str
    backend_class: type[TinyBackend]
    test: str
    kinds: tuple[str, ...]
    """The vocabularies with which the fault shows."""


MUTANTS: dict[str, Mutant] = {}


def mutant(test: str, *kinds: str) -> Callable[[type], type]:
    """Register a model, a sampler or a backend with a fault that this test must notice."""

    def register(cls: type) -> type:
        backend = cls
        if issubclass(cls, Sampler):
            cls = type(cls.__name__, (TinyModel,), {"sampler_class": cls})
        if issubclass(cls, TinyModel):
            backend = type(f"{cls.__name__}Backend", (TinyBackend,), {"model_class": cls})
        assert cls.__name__ not in MUTANTS, f"two mutants are called {cls.__name__}"
        MUTANTS[cls.__name__] = Mutant(cls.__name__, backend, f"test_{test}", kinds or BOTH)
        return cls

    return register
