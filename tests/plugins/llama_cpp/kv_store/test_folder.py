import os
import subprocess
import sys

import pytest

from puna_llama_cpp.kv_store import folder as folder_module
from puna_llama_cpp.kv_store.folder import CacheFolder, NoRoomError

WRITER = """
import sys
from pathlib import Path
from puna_llama_cpp.kv_store.folder import CacheFolder
with CacheFolder(Path(sys.argv[1]), 1000).create("p", sys.argv[2], 300) as file:
    file.write(b"x" * 100)
    print("writing", flush=True)
    sys.stdin.read()
    file.write(b"x" * 200)
"""


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def folder(root):
    return CacheFolder(root, 1000)


def put(folder, name, size=300, partition="p"):
    with folder.create(partition, name, size) as file:
        file.write(b"x" * size)


def content(folder, name):
    with folder.open("p", name) as file:
        return file.read()


def age(root, name, seconds):
    os.utime(root / "p" / f"{name}.kv", (seconds, seconds))


def write_elsewhere(root, name):
    """Start a process that writes a file and waits in the middle."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, root, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "writing\n"
    return writer


def test_only_the_account_itself_can_read(folder, root):
    put(folder, "a")
    modes = {path.relative_to(root).as_posix(): path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")]}
    assert modes == {".": 0o700, "lock": 0o600, "p": 0o700, "p/a.kv": 0o600}


def test_a_folder_into_which_others_may_write_is_refused(root):
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(PermissionError):
        CacheFolder(root, 1000)


def test_a_file_is_visible_once_it_is_complete(folder):
    with folder.create("p", "a", 3) as file:
        assert folder.list_names("p") == set()
        file.write(b"abc")
    assert folder.list_names("p") == {"a"}
    assert content(folder, "a") == b"abc"


def test_nothing_is_left_of_a_file_that_failed(folder, root):
    with pytest.raises(ZeroDivisionError), folder.create("p", "a", 3):
        raise ZeroDivisionError
    assert list((root / "p").iterdir()) == []


def test_the_files_used_least_recently_make_room(folder, root):
    for number, name in enumerate("abc"):
        put(folder, name)
        age(root, name, number)
    folder.touch("p", "a")
    put(folder, "d")
    assert folder.list_names("p") == {"a", "c", "d"}


def test_a_file_that_fits_nowhere_costs_no_other(folder):
    put(folder, "a")
    with pytest.raises(NoRoomError):
        put(folder, "b", 1001)
    assert folder.list_names("p") == {"a"}


def test_an_empty_partition_is_removed(folder, root):
    put(folder, "a", 900)
    put(folder, "b", 900, "q")
    assert not (root / "p").exists()


def test_room_for_others_is_left_on_the_disk(folder, monkeypatch):
    free = folder_module._KEPT_FREE_BYTES + 200
    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    put(folder, "a", 150)
    with pytest.raises(NoRoomError):
        put(folder, "b", 600)


def test_what_another_process_writes_counts_and_is_left_alone(folder, root):
    put(folder, "a", 500)
    with write_elsewhere(root, "b") as writer:
        put(folder, "c", 600)
        assert folder.list_names("p") == {"c"}
        writer.communicate()
    assert folder.list_names("p") == {"b", "c"}


def test_two_processes_do_not_write_the_same_file(folder, root):
    with write_elsewhere(root, "b") as writer:
        with pytest.raises(FileExistsError):
            put(folder, "b")
        writer.communicate()
    assert content(folder, "b") == b"x" * 300


def test_a_killed_writer_leaves_nothing_and_the_other_files_stay(folder, root):
    put(folder, "a")
    with write_elsewhere(root, "b") as writer:
        writer.kill()
    assert folder.list_names("p") == {"a"}
    put(folder, "b")
    assert sorted(path.name for path in (root / "p").iterdir()) == ["a.kv", "b.kv"]


def test_a_file_that_is_removed_while_it_is_read_stays_readable(folder):
    put(folder, "a")
    with folder.open("p", "a") as file:
        folder.remove("p", "a")
        assert file.read() == b"x" * 300
    with pytest.raises(FileNotFoundError):
        folder.open("p", "a")
