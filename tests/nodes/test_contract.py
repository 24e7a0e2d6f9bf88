"""The contract of every backend, with the host on a node."""

from pathlib import Path

import pytest

from puna.backend import ModelSpec
from puna.testing import BackendContract

MODELS = Path(__file__).parents[1] / "models"


@pytest.mark.usefixtures("on_nodes")
class TestLlamaCpp(BackendContract):
    entry_point = "llama_cpp"

    def spec(self):
        return ModelSpec(path=str(MODELS / "chatter.gguf"), context_length=512, parallel=2, threads=1)


def test_the_hosts_ran_on_the_node(on_nodes):
    assert sum(each.log().count("runs llama_cpp for") for each in on_nodes) > 5
