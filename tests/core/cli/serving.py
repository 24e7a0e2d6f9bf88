"""A running core for commands, with a store that they may change."""

import shutil

import pytest
from tests.core.rpc.conftest import address, batches
from tests.core.serving.conftest import backend, registry, serving, settings
from tests.core.serving.conftest import stocked as shared

from puna.models.store import ModelStore
from puna.serving.installed_backends import InstalledBackends
from puna.settings import Settings

__all__ = ["address", "backend", "batches", "registry", "serving", "settings", "shared"]


@pytest.fixture
def stocked(shared, tmp_path, registry):
    shutil.copytree(shared.root, tmp_path / "models")
    return ModelStore(tmp_path / "models", backends=InstalledBackends(registry))


@pytest.fixture
def client(address, stocked):
    """The settings of a command that speaks to the core."""
    return Settings(grpc_host=address, models=stocked.root)
