"""The files of the cache, and what several processes may do with them at once."""

import errno
import hashlib
import os
import shutil

import pytest

from puna.node.file_cache import CacheFullError, FileCache
from puna.node.verified import VerifiedFiles


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "cache", 100)


@pytest.fixture
def other(cache):
    """The same folder in another process."""
    return FileCache(cache.folder, 100)


def name_of(content):
    return f"sha256-{hashlib.sha256(content).hexdigest()}"


def add(cache, content):
    """Add a file, and hold it."""
    name = name_of(content)
    partial = cache.receive(name, len(content))
    partial.write([memoryview(content)])
    partial.hash([memoryview(content)])
    assert name.endswith(partial.digest())
    return cache.complete(partial, name)


def names(cache):
    return {each.name for each in (cache.folder / "files").iterdir()}


def test_a_file_is_there_once_it_is_complete(cache, other):
    name = name_of(b"content")
    assert other.find(name) is None
    held = add(cache, b"content")
    found = other.find(name)
    assert found.path.read_bytes() == b"content"
    assert other.verified.has(name, found.path)
    held.release()
    found.release()


def test_one_process_receives_a_file_and_others_see_how_much_has_arrived(cache, other):
    name = name_of(b"content")
    assert other.arriving(name, 7) is None
    partial = cache.receive(name, 7)
    partial.write([memoryview(b"cont")])
    assert other.receive(name, 7) is None
    assert other.arriving(name, 7) == 4
    partial.close()
    assert other.arriving(name, 7) is None
    went_on = other.receive(name, 7)
    went_on.read(lambda: False, lambda _: None)
    went_on.write([memoryview(b"ent")])
    went_on.hash([memoryview(b"ent")])
    assert name.endswith(went_on.digest())
    other.complete(went_on, name).release()
    assert cache.receive(name, 7) is None


def test_a_file_that_arrives_counts_with_the_size_that_it_will_have(cache, other):
    partial = cache.receive(name_of(b"a" * 60), 60)
    with pytest.raises(CacheFullError, match="of the 100 bytes of the cache, files in use take 60"):
        other.receive(name_of(b"b" * 60), 60)
    partial.close()
    # Nobody brings the first one any more, so it makes room.
    other.receive(name_of(b"b" * 60), 60).close()
    assert [each.name for each in (cache.folder / "partial").iterdir()] == [f"{name_of(b'b' * 60)}.60"]


def test_a_file_in_use_by_another_process_is_kept(cache, other):
    used = add(other, b"u" * 40)
    add(other, b"f" * 40).release()
    add(cache, b"n" * 40).release()
    assert names(cache) == {name_of(b"u" * 40), name_of(b"n" * 40)}
    used.release()
    add(cache, b"l" * 100).release()
    assert names(cache) == {name_of(b"l" * 100)}


def test_room_is_made_on_a_disk_that_others_fill(cache, monkeypatch):
    add(cache, b"old").release()
    disk = shutil.disk_usage(cache.folder)

    def usage(folder):
        # Each file of the cache takes the last bytes of the disk.
        return disk._replace(free=(1 << 40) * (not names(cache)))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    add(cache, b"new").release()
    assert names(cache) == {name_of(b"new")}
    held = cache.find(name_of(b"new"))
    with pytest.raises(CacheFullError, match="has 0 bytes left"):
        cache.receive(name_of(b"more"), 4)
    held.release()


def test_a_record_holds_until_the_file_is_touched(tmp_path):
    file, records = tmp_path / "file", VerifiedFiles(tmp_path / "records")
    file.write_bytes(b"x")
    (tmp_path / "records").mkdir()
    assert not records.has("sha256-0", file)
    records.add("sha256-0", file)
    assert VerifiedFiles(tmp_path / "records").has("sha256-0", file)
    shutil.copy(file, tmp_path / "copy")
    assert not records.has("sha256-0", tmp_path / "copy")
    file.write_bytes(b"y")
    assert not records.has("sha256-0", file)
    records.add("sha256-0", file)
    (tmp_path / "records" / "sha256-0").write_bytes(b"{")
    assert not VerifiedFiles(tmp_path / "records").has("sha256-0", file)


def test_a_record_that_cannot_be_written_holds_for_this_process(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    records = VerifiedFiles(tmp_path / "nowhere")
    records.add("sha256-0", file)
    records.touch("sha256-0")
    assert records.has("sha256-0", file)
    records.remove("sha256-0")
    assert not records.has("sha256-0", file)
    assert records.used_at("sha256-0") == 0.0


def test_the_folder_is_its_owners_alone(cache):
    cache.prepare()
    assert {each.stat().st_mode & 0o777 for each in (cache.folder, *cache.folder.iterdir())} == {0o700}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as raised:
        FileCache(tmp_path / "file" / "cache", 100).prepare()
    assert raised.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - names alone
