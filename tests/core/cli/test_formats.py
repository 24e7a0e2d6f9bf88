"""The report of `puna doctor` on files that older and newer versions wrote."""

import json

import pytest
from tests.core import planted
from tests.core.cli.test_doctor import asking

from puna.auth.keys import KeyFile
from puna.auth.usage import Ledger
from puna.batch.core import Batches
from puna.cli.doctor import doctor
from puna.cli.formats import survey
from puna.demo.install import install_in_new_store
from puna.settings import Settings


@pytest.fixture
def settings(tmp_path):
    found = Settings(
        grpc_host="127.0.0.1:1",
        models=tmp_path / "models",
        batches=tmp_path / "batches",
        keys=tmp_path / "keys.json",
        plugins_folder=tmp_path / "plugins",
    )
    install_in_new_store(found.models)
    batches = Batches(found.batches)
    batches._folder.open()
    batches._folder.close()
    key, _ = KeyFile(found.keys).create(name="shop")
    ledger = Ledger(tmp_path / "usage.json")
    with ledger.running(key):
        ledger.spend(key, 3, 4)
    ledger.save()
    planted.install_plugin(found.plugins_folder)
    return found


def paths(settings):
    """Return the file with the version of each kind."""
    return {
        "store of models": settings.models / ".puna/format.json",
        "batches and files": settings.batches / "format.json",
        "API keys": settings.keys,
        "usage of API keys": settings.keys.with_name("usage.json"),
        "installed plugin": settings.plugins_folder / planted.PLUGIN / "plugin.json",
    }


async def test_what_this_version_wrote_is_current(settings, tmp_path, capsys):
    before = planted.contents(tmp_path)
    assert {each.kind: each.path for each in survey(settings)} == paths(settings)
    assert await doctor(settings, asking(formats=True)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"ok       {kind}: {path}: format version 1" for kind, path in paths(settings).items()]
    assert planted.contents(tmp_path) == before


@pytest.mark.parametrize(
    "kind", ["store of models", "batches and files", "API keys", "usage of API keys", "installed plugin"]
)
async def test_what_a_newer_version_wrote_is_a_fault(settings, tmp_path, capsys, kind):
    path = paths(settings)[kind]
    planted.change(path, **{"format" if kind == "installed plugin" else "version": planted.NEWER})
    before = planted.contents(tmp_path)
    assert await doctor(settings, asking(formats=True, json=True)) == 1
    found = [json.loads(line)["format"] for line in capsys.readouterr().out.splitlines()]
    (fault,) = (each for each in found if each["fault"])
    assert (fault["kind"], fault["version"], fault["known_version"]) == (kind, None, 1)
    assert "has format version 2, and this version of Puna knows 1 at most" in fault["fault"]
    assert path.name in fault["fault"]
    assert planted.contents(tmp_path) == before


async def test_what_is_older_is_named_with_the_change(settings, tmp_path, capsys):
    (settings.models / ".puna/format.json").unlink()
    (settings.batches / "format.json").unlink()
    (settings.models / "blobs" / f"sha256:{'0' * 64}").touch()
    usage = settings.keys.with_name("usage.json")
    usage.write_text(json.dumps(json.loads(usage.read_text())["keys"]))
    before = planted.contents(tmp_path)
    assert await doctor(settings, asking(formats=True)) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note ")]
    assert len(notes) == 4
    for line, change in zip(
        notes, ("first change of the store", "renames 1 blobs", "writes", "keeps all counts"), strict=True
    ):
        assert change in line
    assert planted.contents(tmp_path) == before


async def test_the_doctor_says_so_beside_its_other_findings(settings, capsys):
    assert await doctor(settings, asking(quick=True)) == 0
    assert "format version" not in capsys.readouterr().out
    planted.change(settings.keys.with_name("usage.json"), version=planted.NEWER)
    assert await doctor(settings, asking(quick=True)) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAULT    usage of API keys: ")
    assert out.splitlines()[-1].endswith("all is well")


async def test_without_files_there_is_nothing_to_say(tmp_path):
    assert list(survey(Settings(models=tmp_path / "none", batches=tmp_path / "no", keys=tmp_path / "keys.json"))) == []
