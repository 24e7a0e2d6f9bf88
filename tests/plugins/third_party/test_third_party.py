"""A stranger's plugin: built, installed and served as any other, and held to the same contract."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.uv import UV

from puna.backend import ModelSpec, SequenceRequest, TextDelta
from puna.plugins import Registry
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import ModelRequirements
from puna.settings import Settings
from puna.testing import BackendContract

HERE = Path(__file__).parent


def source_module():
    spec = importlib.util.spec_from_file_location("puna_parrot_source", HERE / "puna_parrot.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestParrot(BackendContract):
    backend_class = source_module().ParrotBackend
    manifest = HERE / "puna_parrot.backend.toml"

    def spec(self):
        return ModelSpec(path=__file__, context_length=256)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which the distribution is installed; hatchling, which builds it, comes from the package index."""
    folder = tmp_path_factory.mktemp("third_party")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "puna_parrot.py", "puna_parrot.backend.toml"):
        shutil.copy(HERE / name, source)
    command = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        "--no-deps",
        "--target",
        folder / "site",
        source,
    ]
    subprocess.run(command, check=True, timeout=300)
    return folder / "site"


@pytest.fixture
def installed(site, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(site)
    return Registry.discover()


def test_it_is_listed(installed):
    parrot = next(info for info in installed.describe() if info.name == "parrot")
    assert (parrot.distribution, parrot.version) == ("puna-parrot", "0.1.0")
    assert (parrot.formats, parrot.error) == (("parrot",), "")


def test_the_command_line_lists_it(site):
    done = subprocess.run(
        [sys.executable, "-m", "puna", "plugins"],
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("parrot"))
    assert "puna-parrot" in line
    assert "0.1.0" in line


async def test_it_is_served_through_a_host(installed):
    want = ModelRequirements(key="polly", name="polly", format="parrot", spec=ModelSpec(path=__file__))
    async with ModelPool(installed, Settings()) as pool, pool.lease(want) as lease:
        assert lease.backend == "parrot"
        assert pool.loaded()[0].pid not in (0, os.getpid())
        events = [event async for event in lease.model.generate(SequenceRequest(prompt="Polly wants a 🥨"))]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Polly wants a 🥨"
    assert events[-1].reason == "stop"
