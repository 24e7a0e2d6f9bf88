from pathlib import Path

import pytest
from tests.core.models.conftest import write_gguf


@pytest.fixture
def make_gguf():
    return write_gguf


@pytest.fixture(scope="session")
def scripted_models():
    return Path(__file__).parents[2] / "models"
