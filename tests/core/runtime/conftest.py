import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from puna.runtime.heartbeat import NO_TIMEOUTS
from puna.runtime.host_loading import HostLoader
from puna.runtime.local_launcher import LocalLauncher
from puna.runtime.pool import ModelPool
from puna.settings import Settings


@pytest.fixture
def short_path():
    """A folder whose name leaves room for a socket's; pytest's own are long."""
    with tempfile.TemporaryDirectory(prefix="puna-test-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
async def load_hosted(registry, short_path, want):
    """Loads a model in a host, with adapters if paths are given; every one is closed at the end."""
    sockets = itertools.count()
    loader, models = HostLoader(LocalLauncher(lambda: short_path / str(next(sockets)))), []

    async def load_hosted(
        backend=None,
        *adapters,
        path=None,
        stall_seconds=30.0,
        report=lambda _: None,
        on_death=lambda: None,
        timeouts=NO_TIMEOUTS,
        alone=False,
        **options,
    ):
        spec = want(adapter_paths=adapters, **options).spec
        model = await loader.load(
            backend or registry.get("scripted"),
            spec if path is None else replace(spec, path=path),
            report=report,
            stall_seconds=stall_seconds,
            on_death=on_death,
            timeouts=timeouts,
            alone=alone,
        )
        models.append(model)
        return model

    yield load_hosted
    for model in models:
        await model.aclose()


@pytest.fixture
async def make_pool(registry, short_path):
    """Opens pools with settings as given; every one is closed at the end."""
    pools = []

    async def make_pool(backends=registry, **settings):
        pool = await ModelPool(backends, Settings(**settings), socket_dir=short_path).__aenter__()
        pools.append(pool)
        return pool

    yield make_pool
    for pool in pools:
        await pool.__aexit__(None, None, None)
    assert list(short_path.iterdir()) == []
