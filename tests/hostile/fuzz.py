"""How long the property-based tests of this folder run.

`make test` runs each of them for a fixed number of examples that are always the same. With PUNA_FUZZ_SECONDS, which
`make fuzz` sets, the time is divided among those that are selected, and each is repeated with fresh seeds until its
share is over. A failure says the example, and the seed that finds it again (PUNA_FUZZ_SEED). With PUNA_FUZZ_SEQUENCE,
any text, each property gets the same seeds in every run: what decides over a change must not depend on chance.
"""

import contextlib
import os
import random
import time

import hypothesis
from hypothesis import HealthCheck, Phase, settings

SECONDS = float(os.environ.get("PUNA_FUZZ_SECONDS") or 0)
SEED = int(os.environ.get("PUNA_FUZZ_SEED") or 0)
SEQUENCE = os.environ.get("PUNA_FUZZ_SEQUENCE")
_PER_ROUND = 10


def fuzz(examples, *, shrink=True, seconds=None):
    """Decorate a hypothesis test that tries so many examples in `make test`.

    Shrinking asks for hundreds of examples more, which takes minutes where each may wait for a server. `seconds` is
    what an example may take.
    """
    return settings(
        max_examples=_PER_ROUND if SECONDS else examples,
        derandomize=not SECONDS,
        database=None,
        deadline=None if seconds is None else seconds * 1000,
        print_blob=True,
        phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=list(HealthCheck),
    )


class Budget:
    """Time that is divided among properties. What one takes too much, the later ones lack."""

    def __init__(self, seconds, count):
        self._seconds = seconds
        self._count = count

    @contextlib.contextmanager
    def share(self):
        """Give one property's share, and count what it takes."""
        start = time.monotonic()
        yield max(self._seconds, 0) / max(self._count, 1)
        self._seconds -= time.monotonic() - start
        self._count -= 1


def is_fuzz(item):
    """Say whether a collected test is a property."""
    return getattr(getattr(item, "obj", None), "is_hypothesis_test", False)


def repeat(item, seconds):
    """Run a property with fresh seeds until the time is over, once at least."""
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
    function = getattr(item.obj, "__func__", item.obj)
    end = time.monotonic() + seconds
    seeds = random.Random(f"{SEQUENCE} {item.nodeid}" if SEQUENCE else None)
    while True:
        seed = SEED or seeds.getrandbits(63)
        hypothesis.seed(seed)(function)
        try:
            item.obj(**arguments)
        except Exception as error:
            error.add_note(f"again: PUNA_FUZZ_SECONDS=1 PUNA_FUZZ_SEED={seed} pytest '{item.nodeid}'")
            raise
        if SEED or time.monotonic() > end:
            return
