"""A server for all tests to ask, and one of its own for each test that hurts it."""

import pytest
from tests.e2e.server import MODELS, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server on a new store: llamita is in it, and the scripted models join it as `scripted` and `embedder`."""
    store = tmp_path_factory.mktemp("home") / "models"
    with serving(store) as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        running.upload("embedder", MODELS / "embedder.gguf")
        yield running


@pytest.fixture
def fresh(tmp_path):
    """A server of one's own on a new store, to be hurt."""
    with serving(tmp_path / "models") as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        yield running
