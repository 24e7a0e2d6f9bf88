"""What plugins/README.md shows does what it says."""

import os
import re
from pathlib import Path

import pytest

from puna.backend import ModelSpec, SequenceRequest
from puna.plugins import Registry
from puna.runtime.pool import ModelPool
from puna.runtime.requirements import ModelRequirements
from puna.settings import Settings
from puna.testing import collect

README = (Path(__file__).parents[2] / "plugins" / "README.md").read_text()


@pytest.fixture
def blocks():
    return re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


async def test_the_first_example_is_a_working_backend(blocks, tmp_path, monkeypatch):
    code = next(text for language, text in blocks if language == "python")
    manifest, entry = [text for language, text in blocks if language == "toml"][:2]
    (tmp_path / "puna_echo.py").write_text(code)
    (tmp_path / "puna_echo.backend.toml").write_text(manifest)
    described = tmp_path / "puna_echo-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: puna-echo\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        entry.replace('[project.entry-points."puna.backends"]', "[puna.backends]").replace('"', "")
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    want = ModelRequirements(key="e", name="e", format="echo", spec=ModelSpec(path=""))
    async with ModelPool(Registry.discover(), Settings()) as pool, pool.lease(want) as lease:
        answer = await collect(lease.model, SequenceRequest(prompt="hello there"))
    assert answer.text == "hello there "
    assert len(code.strip().splitlines()) <= 25


def test_the_test_class_is_named_rightly(blocks):
    code = next(text for language, text in blocks if "BackendContract" in text)
    compile(code, "README.md", "exec")
    assert "from puna.testing import BackendContract" in code
