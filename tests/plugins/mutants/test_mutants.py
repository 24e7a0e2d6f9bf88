"""Each mutant of the right backend is caught by the contract test that exists for its fault."""

import os
import threading
import time

import pytest
from tests.plugins.mutants import (  # noqa: F401 (they register mutants)
    faults_details,
    faults_engine,
    faults_models,
    faults_prompt_logprobs,
    faults_requests,
    faults_sampling,
    faults_text,
)
from tests.plugins.mutants.registry import MUTANTS, OVER
from tests.plugins.mutants.test_right import Right, models  # noqa: F401 (a fixture)

from puna.backend import BackendError

EVERY = 1 if os.environ.get("PUNA_MUTANTS") else 10
"""`make test-mutants` plants every fault; the other runs plant one in ten, which takes seconds instead of minutes."""
CASES = [(each.name, kind) for each in MUTANTS.values() for kind in each.kinds]
NOTICED = (AssertionError, TimeoutError, BackendError, OSError, ValueError)


@pytest.mark.parametrize(("name", "kind"), CASES[::EVERY])
def test_a_mutant_is_caught(models, name, kind):  # noqa: F811
    mutant = MUTANTS[name]

    class Contract(Right):
        backend_class = mutant.backend_class
        path = models[kind]
        seconds = 4.0
        stop_seconds = 0.7
        silent_seconds = 0.1
        blocked_seconds = 0.05

    contract = Contract()
    OVER.clear()
    threads = threading.active_count()
    try:
        with pytest.raises(NOTICED):
            getattr(contract, mutant.test)()
    finally:
        contract.teardown_class()
        OVER.set()
        # What one mutant leaves behind must not hide what the next one does.
        end = time.monotonic() + 2
        while threading.active_count() > threads and time.monotonic() < end:
            time.sleep(0.005)
