"""`puna import` and `puna doctor` as users and scripts run them, and what a server says of files that were hurt."""

import json
import os
import shutil
import subprocess

import pytest
from tests.e2e.server import MODELS, PUNA, serving

HELLO = {"prompt": "Hello", "stream": False, "raw": True, "keep_alive": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("upkeep") / "models") as running:
        yield running


@pytest.fixture
def puna(server):
    def run(*words, status=0, grpc=server.grpc):
        done = subprocess.run(
            [PUNA, *words],
            env=os.environ | {"PUNA_GRPC_HOST": grpc, "OLLAMA_MODELS": str(server.store)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def folder(tmp_path):
    """A folder with a model and what is none."""
    (tmp_path / "ggufs").mkdir()
    shutil.copy(MODELS / "scripted.gguf", tmp_path / "ggufs" / "Scripted-Q8_0.gguf")
    (tmp_path / "ggufs" / "none.gguf").write_text("none")
    return tmp_path / "ggufs"


@pytest.fixture
def imported(puna, folder):
    puna("import", "--link", "symbolic", str(folder))
    yield folder / "Scripted-Q8_0.gguf"
    puna("rm", "scripted:q8_0")


def test_a_folder_is_imported_in_place(puna, server, folder):
    dry = puna("import", str(folder), "--dry-run")
    assert dry.stdout == f"scripted:q8_0 (744 KB)\n    {folder}/Scripted-Q8_0.gguf\n"
    assert dry.stderr.splitlines()[0].endswith("none.gguf: it cannot be read: it is no GGUF file")
    assert "scripted:q8_0" not in puna("list").stdout
    file = folder / "Scripted-Q8_0.gguf"
    assert puna("import", str(folder)).stdout == f"imported scripted:q8_0: {file} (hard link)\n"
    assert server.json("/api/generate", {"model": "scripted:q8_0"} | HELLO)["response"]
    again = puna("import", str(folder))
    assert "there is a model scripted:q8_0 already" in again.stderr
    assert "nothing to import" in again.stderr
    lines = puna("show", "scripted:q8_0").stdout.splitlines()
    place = lines.index("  In place")
    assert lines[place + 1].split() == [str(file), "hard", "link", "unchanged"]
    assert "in_place" not in server.json("/api/show", {"model": "scripted:q8_0"})
    puna("rm", "scripted:q8_0")
    assert file.exists()


def test_an_import_for_scripts(puna, folder):
    lines = puna("import", str(folder), "--name", "mine", "--json").stdout.splitlines()
    plan, *_, last = map(json.loads, lines)
    assert [each["name"] for each in plan["plan"]["models"]] == ["mine:latest"]
    assert [each["path"] for each in plan["plan"]["skipped"]] == [f"{folder}/none.gguf"]
    assert last["imported"]["in_place"][0]["link_kind"] == "LINK_KIND_HARD"
    puna("rm", "mine")


def test_an_import_that_makes_no_sense(puna, tmp_path):
    text = puna("import", str(tmp_path / "nowhere"), status=1).stderr
    assert text == f"Error: {tmp_path}/nowhere: no such file or directory\n"


def test_a_file_that_changes_is_named_when_it_is_loaded(puna, server, imported):
    content = bytearray(imported.read_bytes())
    content[-100] ^= 1
    imported.write_bytes(content)
    status, _, text = server.ask("/api/generate", {"model": "scripted:q8_0"} | HELLO)
    assert status == 500
    assert json.loads(text)["error"].startswith(f"model 'scripted:q8_0' is damaged: {imported}, which is used in place")
    assert "touched since" in puna("show", "scripted:q8_0").stdout
    content[-100] ^= 1
    imported.write_bytes(content)
    assert server.json("/api/generate", {"model": "scripted:q8_0"} | HELLO)["response"]


def test_a_file_that_goes_is_named_when_it_is_loaded(puna, server, imported):
    imported.unlink()
    status, _, text = server.ask("/api/generate", {"model": "scripted:q8_0"} | HELLO)
    assert (status, f"{imported}, which is used in place" in text.decode()) == (500, True)
    assert f"{imported} is gone" in puna("show", "scripted:q8_0", status=1).stderr


def test_a_damaged_blob_is_found_and_removed_and_the_model_comes_back(puna, server):
    server.upload("hurt", MODELS / "embedder.gguf")
    modelfile = server.json("/api/show", {"model": "hurt"})["modelfile"]
    path = next(line for line in modelfile.splitlines() if line.startswith("FROM /")).removeprefix("FROM ")
    assert puna("doctor").stdout.splitlines()[-1].endswith("read: all is well")
    with open(path, "r+b") as file:  # noqa: PTH123 - in place
        file.seek(-100, os.SEEK_END)
        file.write(b"damage")
    done = puna("doctor", status=1)
    assert f"FAULT    damaged blob: blob {path} has changed" in done.stdout
    assert "of hurt:latest" in done.stdout
    done = puna("doctor", "--json", status=1, grpc="127.0.0.1:1")
    assert done.stderr == f"no server at 127.0.0.1:1: looking at {server.store}\n"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    # Backends whose libraries are missing are listed before.
    finding, last = next(each for each in lines if "finding" in each), lines[-1]
    assert (finding["finding"]["kind"], last["report"]["fault_count"]) == ("FINDING_KIND_DAMAGED_BLOB", 1)
    assert "repaired" in puna("doctor", "--repair").stdout
    server.upload("hurt", MODELS / "embedder.gguf")
    assert puna("doctor", "--offline", "--quick").stdout.splitlines()[-1].endswith("all is well")
