import os

import pytest

from puna import atomic_files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def test_a_file_is_replaced_and_private(path):
    path.write_text("old")
    atomic_files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("put", [atomic_files.write, atomic_files.create])
def test_a_failure_leaves_nothing_behind(path, put, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    if put is atomic_files.write:
        path.write_text("old")
    before = [(each, each.read_bytes()) for each in path.parent.iterdir()]
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        put(path, b"new")
    assert [(each, each.read_bytes()) for each in path.parent.iterdir()] == before


def refuse_links(path, target):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_created_once(path, links, monkeypatch):
    if not links:
        monkeypatch.setattr(type(path), "hardlink_to", refuse_links)
    atomic_files.create(path, b"first", 0o644)
    with pytest.raises(FileExistsError):
        atomic_files.create(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.stat().st_nlink == 1
    assert list(path.parent.iterdir()) == [path]
