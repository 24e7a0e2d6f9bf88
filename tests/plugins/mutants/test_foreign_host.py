"""The contract tests through host processes: the right backend passes, and mutants are caught as in one process."""

import sys
from pathlib import Path

import pytest
from tests.plugins.mutants import test_mutants
from tests.plugins.mutants.registry import MUTANTS
from tests.plugins.mutants.test_right import Right, models  # noqa: F401 (a fixture)

from puna.errors import BackendFailedError

HOST = Path(__file__).with_name("foreign_host.py")
SAMPLE = {
    "StopLeakedByLongTokens": "words",
    "HalfCharacters": "bytes",
    "OneTokenTooMany": "words",
    "NegativeDuration": "bytes",
    "OneSeed": "words",
    "PresencePenaltyCounts": "words",
    "BaseTwo": "words",
    "ConstraintIgnored": "bytes",
    "ConstraintRefusedLate": "words",
    "StepsGoOn": "words",
    "ThreadComputesOn": "bytes",
    "SlotIsFreedLate": "words",
    "TextBlocks": "words",
    "StepStandsStill": "bytes",
    "SaltIgnored": "words",
    "KeepIgnored": "bytes",
    "EmbeddingsReversed": "words",
    "NaNRanks": "words",
    "ParseSpecialIgnored": "words",
    "MissingFileIsUnsupported": "words",
}
"""Mutants of each kind of fault, and the vocabulary of each."""


def write_manifest(folder, *arguments):
    """Describe a host that is started by a command, with everything that the tiny model can do."""
    command = ", ".join(f'"{each}"' for each in (sys.executable, HOST, *arguments))
    path = folder / "backend.toml"
    path.write_text(f"""
contract = 1
name = "tiny"
formats = ["tiny"]
[host]
command = [{command}]
[capabilities]
logprobs = true
embeddings = true
rerank = true
constraints = ["json_schema", "gbnf", "lark", "regex"]
sampling = ["temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty",
            "frequency_penalty", "seed", "logit_bias", "shift"]
""")
    return path


class TestRightHost(Right):
    backend_class = None
    kind = "words"

    @pytest.fixture(autouse=True)
    def described(self, models):  # noqa: F811
        type(self).manifest = write_manifest(models["words"].parent)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_mutant_in_a_host_is_caught(models, tmp_path, name):  # noqa: F811
    class Contract(Right):
        backend_class = None
        manifest = write_manifest(tmp_path, name)
        path = models[SAMPLE[name]]
        seconds = 10.0
        stop_seconds = 0.7
        blocked_seconds = 0.1

    contract = Contract()
    try:
        # The core itself notices some faults, in the answers of a host.
        with pytest.raises((*test_mutants.NOTICED, BackendFailedError)):
            getattr(contract, MUTANTS[name].test)()
    finally:
        contract.teardown_class()
