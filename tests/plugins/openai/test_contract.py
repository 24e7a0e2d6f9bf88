"""The contract of chat-level backends, with another Puna as the upstream."""

import pytest
from tests.e2e.server import serving

from puna.backend import ModelSpec
from puna.testing import ChatContract
from puna.testing.vectors import VectorTests
from puna_openai import OpenAIBackend


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """The address of a Puna with the demo models."""
    with serving(tmp_path_factory.mktemp("upstream") / "models") as running:
        yield f"{running.url}/v1"


class Upstream:
    backend_class = OpenAIBackend
    prompt = "How old are you?"
    name = ""

    @pytest.fixture(autouse=True)
    def _address(self, upstream):
        self.upstream = {"base_url": upstream, "retries": 0, "dialect": "ollama"}

    def spec(self):
        options = {"upstreams": {"puna": self.upstream}}
        return ModelSpec(path="", upstream=f"puna/{self.name}", backend_options=options)


class TestChat(Upstream, ChatContract):
    name = "llamita"


class TestEmbeddings(Upstream, VectorTests):
    name = "llamita-embed"
    raw_vectors_have_length_one = True  # OpenAI's API has no others
