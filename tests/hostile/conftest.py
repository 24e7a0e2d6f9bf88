"""A server for the attacks of one module, with the scripted models in its store."""

import pytest
from tests.e2e.server import MODELS, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with `scripted` and `embedder`, to be attacked and to survive."""
    with serving(tmp_path_factory.mktemp("home") / "models") as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        running.upload("embedder", MODELS / "embedder.gguf")
        yield running
