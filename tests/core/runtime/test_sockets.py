import os
import stat
import tempfile

import pytest

from puna.runtime import sockets


@pytest.fixture
def short(monkeypatch):
    """A runtime folder with a short name; pytest's own are long."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield path


def test_only_its_owner_may_enter(short):
    with sockets.folder() as path:
        assert str(path.parent) == short
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "1").touch()
    assert not path.exists()


@pytest.mark.parametrize("unfit", ["", "relative", "/no/such/folder", "/tmp/" + 100 * "x"])
def test_an_unfit_runtime_folder_is_passed_over(monkeypatch, unfit):
    monkeypatch.setenv("XDG_RUNTIME_DIR", unfit)
    with sockets.folder() as path:
        assert str(path.parent) != unfit


def test_addresses_are_short_enough_wherever_folders_lie(short, tmp_path, monkeypatch):
    long = tmp_path / (100 * "x")
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with sockets.folder() as path:
        assert len(os.fsencode(path / "123456")) <= sockets.ADDRESS_BYTES


def test_the_caller_may_choose(tmp_path):
    with sockets.folder(tmp_path) as path:
        assert path.parent == tmp_path
