import fcntl
import os
import shutil

from puna.process import exit as process_exit
from puna.process.temporary_folders import MARK, Scratch, sweep


def test_a_folder_is_its_owners_and_goes_with_its_context(tmp_path):
    with Scratch(tmp_path) as made:
        path = made.path
        assert path.stat().st_mode & 0o777 == 0o700
        assert str(path) in process_exit.PATHS
    assert not path.exists()
    assert str(path) not in process_exit.PATHS


def test_a_folder_that_was_removed_is_made_anew(tmp_path):
    with Scratch(tmp_path) as made:
        first = made.path
        shutil.rmtree(first)
        assert made.path != first
        assert made.path.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_sweeping_removes_only_marked_folders_that_no_process_locks(tmp_path):
    dead, unmarked, other = tmp_path / "puna-dead", tmp_path / "puna-unmarked", tmp_path / "other"
    for each in (dead, unmarked, other):
        each.mkdir()
    (dead / MARK).touch()
    (other / MARK).touch()
    with Scratch(tmp_path) as living:
        sweep(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([living.path, unmarked, other])


def test_sweeping_follows_no_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / MARK).touch()
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "puna-link").symlink_to(outside)
    sweep(inside)
    assert outside.is_dir()


def test_a_lock_of_another_process_protects_a_folder(tmp_path):
    folder = tmp_path / "puna-x"
    folder.mkdir()
    (folder / MARK).touch()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    sweep(tmp_path)
    assert folder.is_dir()
    os.close(descriptor)
    sweep(tmp_path)
    assert not folder.exists()


def test_a_folder_that_cannot_be_read_is_no_error(tmp_path):
    sweep(tmp_path / "nowhere")
