import argparse
import json
import shutil

from tests.core.cli.serving import address, backend, batches, client, registry, serving, settings, shared, stocked
from tests.core.serving.conftest import MODELS

from puna.cli.importing import import_models

__all__ = ["address", "backend", "batches", "client", "registry", "serving", "settings", "shared", "stocked"]


def asking(*paths, **given):
    defaults = {
        "name": "",
        "link": "auto",
        "replace": False,
        "dry_run": False,
        "backend": "",
        "format": "",
        "json": False,
    }
    return argparse.Namespace(paths=paths, **defaults | given)


async def test_a_dry_run_prints_the_plan_and_changes_nothing(client, stocked, tmp_path, capsys):
    shutil.copy(MODELS / "scripted.gguf", tmp_path / "mine.gguf")
    before = len(stocked.list())
    assert await import_models(client, asking(tmp_path / "mine.gguf", dry_run=True)) == 0
    out = capsys.readouterr().out
    assert out.startswith("mine")
    assert f"    {tmp_path / 'mine.gguf'}" in out.splitlines()
    assert len(stocked.list()) == before


async def test_an_import_names_the_file_and_how_it_is_kept(client, stocked, tmp_path, capsys):
    # The store has no blob of these bytes yet.
    scripted = (MODELS / "scripted.gguf").read_bytes()
    (tmp_path / "mine.gguf").write_bytes(scripted.replace(b"<|im_start|>", b"<|im_begin|>"))
    assert await import_models(client, asking(tmp_path / "mine.gguf", link="symbolic")) == 0
    assert f"{tmp_path / 'mine.gguf'} (symbolic link)" in capsys.readouterr().out
    assert any(summary.name.model == "mine" for summary in stocked.list())


async def test_a_file_that_is_no_model_is_skipped(client, tmp_path, capsys):
    (tmp_path / "notes.gguf").write_text("no model")
    assert await import_models(client, asking(tmp_path)) == 0
    err = capsys.readouterr().err
    assert f"skipping {tmp_path / 'notes.gguf'}: " in err
    assert err.endswith("nothing to import\n")


async def test_scripts_get_every_event(client, tmp_path, capsys):
    shutil.copy(MODELS / "scripted.gguf", tmp_path / "mine.gguf")
    assert await import_models(client, asking(tmp_path / "mine.gguf", json=True)) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "plan" in events[0]
    assert events[-1]["imported"]["name"].startswith("mine")
