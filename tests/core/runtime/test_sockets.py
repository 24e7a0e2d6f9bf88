import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from puna.runtime import sockets


@pytest.fixture
def short(monkeypatch):
    """A runtime folder with a short name; pytest's own are long."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield path


def test_only_its_owner_may_enter(short):
    with sockets.folder() as addresses:
        first = addresses.next()
        path = first.parent
        assert str(path.parent) == short
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        first.touch()
        assert addresses.next() == path / "2"
    assert not path.exists()


def test_a_folder_that_is_removed_is_made_anew(short):
    with sockets.folder() as addresses:
        before = addresses.next().parent
        shutil.rmtree(before)
        before.mkdir(0o777)  # others may write there
        after = addresses.next().parent
        assert after not in (before, before.parent)
        assert stat.S_IMODE(after.stat().st_mode) == 0o700
    assert [path.name for path in Path(short).iterdir()] == [before.name]


def test_what_living_servers_use_is_left_alone(short):
    (Path(short) / "puna-of-the-user").mkdir()
    with sockets.folder() as one:
        path = one.next()
        with sockets.folder() as other:
            assert other.next().parent != path.parent
        assert path.parent.is_dir()
    assert [path.name for path in Path(short).iterdir()] == ["puna-of-the-user"]


@pytest.mark.parametrize("unfit", ["", "relative", "/no/such/folder", "/tmp/" + 100 * "x"])
def test_an_unfit_runtime_folder_is_passed_over(monkeypatch, unfit):
    monkeypatch.setenv("XDG_RUNTIME_DIR", unfit)
    with sockets.folder() as addresses:
        assert str(addresses.next().parent.parent) != unfit


def test_addresses_are_short_enough_wherever_folders_lie(short, tmp_path, monkeypatch):
    long = tmp_path / (100 * "x")
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with sockets.folder() as addresses:
        assert len(os.fsencode(addresses.next().with_name("123456.r"))) <= sockets.ADDRESS_BYTES


def test_the_caller_may_choose(tmp_path):
    with sockets.folder(tmp_path) as addresses:
        assert addresses.next().parent.parent == tmp_path
