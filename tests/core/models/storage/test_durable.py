import os

import pytest

from puna.models.storage import durable, locks


def test_a_file_that_is_not_renamed_leaves_nothing_behind(tmp_path):
    with durable.temporary(tmp_path / "new", "x-") as (path, file):
        file.write(b"half")
        assert path.name.startswith("x-")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_renamed_file_replaces_its_target_and_is_readable_for_all(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with durable.temporary(tmp_path, "x-") as (path, file):
        file.write(b"new")
        assert target.read_bytes() == b"old"
        durable.replace_atomically(file, path, target)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == durable.FILE_MODE
    assert [each.name for each in tmp_path.iterdir()] == ["target"]


def test_a_file_that_is_being_written_is_locked(tmp_path):
    with durable.temporary(tmp_path, "x-") as (path, _), locks.try_lock(path) as free:
        assert not free


def test_room_is_left_on_the_disk(tmp_path):
    disk = os.statvfs(tmp_path)
    durable.check_room(tmp_path, 1)
    with pytest.raises(OSError, match="No space left on device"):
        durable.check_room(tmp_path, disk.f_bavail * disk.f_frsize)
