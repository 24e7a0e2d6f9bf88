"""A server that is older than the files on the disk: it refuses to use them, and changes no byte."""

import json
import os
import subprocess

import pytest
from tests.core import planted
from tests.e2e.server import PUNA, serving

from puna.auth.keys import KeyFile
from puna.demo.install import install_in_new_store


@pytest.fixture
def home(tmp_path):
    """A store, keys and their usage, as this version writes them."""
    install_in_new_store(tmp_path / "models")
    KeyFile(tmp_path / "keys.json").create(name="shop")
    (tmp_path / "usage.json").write_text('{"version": 1, "keys": {}}')
    return tmp_path


@pytest.mark.parametrize("name", ["models/.puna/format.json", "keys.json", "usage.json"])
def test_the_start_is_refused(home, name):
    planted.change(home / name, version=planted.NEWER)
    before = planted.contents(home)
    variables = {
        "OLLAMA_HOST": "127.0.0.1:0",
        "PUNA_GRPC_HOST": "127.0.0.1:0",
        "OLLAMA_MODELS": str(home / "models"),
        "PUNA_BATCHES": str(home / "batches"),
        "PUNA_KEYS": str(home / "keys.json"),
    }
    done = subprocess.run(
        [PUNA, "serve"], env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    text = done.stderr.splitlines()[-1]
    assert text.startswith("Error: ")
    assert f"{home / name} has format version 2, and this version of Puna knows 1 at most" in text
    assert "Run the newer version, or " in text
    assert planted.contents(home) == before


def test_a_server_works_without_the_batches_of_a_newer_one(home):
    batches = home / "batches"
    planted.mark(batches / "format.json")
    (batches / "batches" / ".index").mkdir(parents=True)
    before = planted.contents(batches)
    with serving(home / "models") as running:
        assert "format version 2" in running.log()
        status, _, body = running.ask("/v1/files")
        assert status >= 400
        assert "format version 2" in json.loads(body)["error"]["message"]
        answer = running.json("/api/generate", {"model": "llamita", "prompt": "Hi", "stream": False})
        assert answer["done"]
    assert planted.contents(batches) == before


def test_a_store_that_becomes_newer_is_changed_no_more(home):
    with serving(home / "models") as running:
        planted.mark(home / "models/.puna/format.json")
        before = planted.contents(home / "models")
        status, _, body = running.ask("/api/copy", {"source": "llamita", "destination": "other"})
        assert (status, "format version 2" in body.decode()) == (500, True)
        status, _, body = running.ask("/api/delete", {"model": "llamita"}, method="DELETE")
        assert (status, "format version 2" in body.decode()) == (500, True)
        assert running.json("/api/tags")["models"]
    assert planted.contents(home / "models") == before
