import asyncio
import os
from pathlib import Path

import pytest

from puna.backend import ModelSpec
from puna.plugins import Registry
from puna.runtime.requirements import ModelRequirements

SCRIPTED = Path(__file__).parents[1] / "plugins" / "scripted"


@pytest.fixture
def registry(monkeypatch):
    """The installed plugins, among them `scripted` (tests/plugins/scripted), for us and for the hosts we start."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SCRIPTED), os.environ.get("PYTHONPATH")])))
    monkeypatch.syspath_prepend(SCRIPTED)
    return Registry.discover()


@pytest.fixture
def journal(tmp_path):
    """A file in which the scripted backend notes what happens to it, and a way to wait for a line."""
    return Journal(tmp_path / "journal")


class Journal:
    def __init__(self, path):
        self.path = path

    def lines(self):
        return self.path.read_text().splitlines() if self.path.exists() else []

    def note(self, line):
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    async def until(self, line, times=1):
        for _ in range(2000):
            if self.lines().count(line) >= times:
                return
            await asyncio.sleep(0.005)
        raise TimeoutError(f"{line!r} was never noted: {self.lines()}")


@pytest.fixture
def want(journal):
    """Makes a Wanted for the scripted backend; unknown names become its options."""

    def make(name="m", backend="", automatic=(), **values):
        spec = {field: values.pop(field) for field in list(values) if field in ModelSpec.__dataclass_fields__}
        options = {"journal": str(journal.path)} | values
        return ModelRequirements(
            key=f"/models/{name}",
            name=f"{name}:latest",
            digest=f"digest of {name}",
            format="scripted",
            backend=backend,
            automatic=frozenset(automatic),
            spec=ModelSpec(path=f"/models/{name}", backend_options=options, **spec),
        )

    return make
