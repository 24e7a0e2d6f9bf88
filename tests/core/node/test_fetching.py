"""Files of models that a node gets from its core: the core's side and the node's side in one process, with real TLS."""

import hashlib
import os
from dataclasses import replace

import pytest

from puna.node.fetching import Fetch
from puna.node.file_cache import FileCache


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """Nodes do not see the folders of the core."""
    places = Fetch._places
    monkeypatch.setattr(Fetch, "_places", lambda self, file: places(self, file)[1:])


@pytest.fixture
def make_blob(tmp_path):
    """Writes a file of the core's store."""

    def make_blob(content):
        folder = tmp_path / "blobs"
        folder.mkdir(exist_ok=True)
        path = folder / f"sha256-{hashlib.sha256(content).hexdigest()}"
        path.write_bytes(content)
        return path

    return make_blob


@pytest.fixture
def load(run_node, make_node, load_on, want):
    """Loads a model of some files on a node."""

    async def load(node, *blobs, **options):
        first, *others = map(str, blobs)
        return await load_on(node, spec=replace(want().spec, path=first, adapter_paths=tuple(others)), **options)

    return load


def files(cache):
    return {each.name: each.read_bytes() for each in (cache.folder / "files").iterdir()}


async def test_a_node_without_the_files_gets_them(run_node, make_node, load, make_blob, tmp_path):
    cache = FileCache(tmp_path / "c", 1 << 30)
    node = make_node((await run_node(cache=cache)).address)
    blobs = [make_blob(os.urandom(3_000_000)), make_blob(b"x"), make_blob(b"")]
    await load(node, *blobs)
    assert files(cache) == {each.name: each.read_bytes() for each in blobs}
    assert list((cache.folder / "partial").iterdir()) == []
