"""The contract tests of chat-level backends: a right one passes, and each mutant is caught."""

import pytest
from tests.plugins.mutants.chat_engine import MUTANTS, TinyChatBackend
from tests.plugins.mutants.test_mutants import NOTICED
from tests.plugins.mutants.test_right import models  # noqa: F401 (a fixture)

from puna.backend import ModelSpec
from puna.testing import ChatContract

MANIFEST = """
contract = 1
name = "tinychat"
formats = ["tiny"]
[capabilities]
chat = true
tools = true
thinking = true
logprobs = true
embeddings = true
constraints = ["json_schema"]
sampling = ["temperature", "seed"]
"""


class Chat(ChatContract):
    backend_class = TinyChatBackend

    def spec(self):
        return ModelSpec(path=str(self.path), context_length=256)


@pytest.fixture
def prepared(models, tmp_path):  # noqa: F811
    path = tmp_path / "backend.toml"
    path.write_text(MANIFEST)
    return {"path": models["words"], "manifest": path, "seconds": 5.0, "stop_seconds": 1.0}


class TestRightChat(Chat):
    @pytest.fixture(autouse=True)
    def _prepared(self, prepared):
        self.path = prepared["path"]
        type(self).manifest = prepared["manifest"]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_chat_mutant_is_caught(prepared, name):
    backend, test = MUTANTS[name]
    contract = type("Contract", (Chat,), {"backend_class": backend, **prepared})()
    try:
        with pytest.raises(NOTICED):
            getattr(contract, test)()
    finally:
        contract.teardown_class()
