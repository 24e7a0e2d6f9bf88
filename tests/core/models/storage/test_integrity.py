import hashlib
import os

import pytest

from puna.models.storage import integrity, stat_fingerprints
from puna.models.storage.integrity import StoppedError, find_damage
from puna.models.storage.stat_fingerprints import FileState, Place

ONES = "sha256:" + "1" * 64


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Take blobs of a kilobyte for large ones."""
    for module in (integrity, stat_fingerprints):
        monkeypatch.setattr(module, "SMALL", 1024)


def flip(path, at=10):
    """Change one byte and nothing else that a careless look would see."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def look(store, blob, **how):
    return find_damage(store.blobs, blob.digest, blob.size, **({"thorough": False} | how))


@pytest.mark.parametrize("size", [100, 5000])
def test_what_was_stored_here_is_known_to_be_right_until_it_is_written_to(store, size):
    blob = store.blobs.add(os.urandom(size))
    path = store.blobs.path(blob.digest)
    assert look(store, blob) == ""
    store.blobs.touch(blob.digest)
    assert store.blobs.stat_fingerprints.state(path) is (FileState.UNCHANGED if size > 1024 else FileState.UNKNOWN)
    flip(path)
    assert look(store, blob) == f"blob {path} has changed: its content is not that of its digest"


def test_large_blobs_that_another_server_wrote_are_read_only_if_that_is_wanted(store):
    blob = store.blobs.add(os.urandom(5000))
    path = store.blobs.path(blob.digest)
    store.blobs.stat_fingerprints.remove(path)
    assert look(store, blob) == ""
    assert store.blobs.stat_fingerprints.state(path) is FileState.UNKNOWN
    assert look(store, blob, thorough=True) == ""
    assert store.blobs.stat_fingerprints.state(path) is FileState.UNCHANGED  # nobody reads it again
    store.blobs.stat_fingerprints.remove(path)
    flip(path)
    assert look(store, blob) == ""
    assert "has changed" in look(store, blob, thorough=True)


def test_a_disk_that_forgets_is_found_by_who_trusts_no_seal(store):
    blob = store.blobs.add(os.urandom(5000))
    path = store.blobs.path(blob.digest)
    flip(path)
    store.blobs.stat_fingerprints.renew(path)  # as if nothing had been written
    assert look(store, blob, thorough=True) == ""
    assert "has changed" in look(store, blob, thorough=True, use_fingerprints=False)


def test_what_is_gone_or_cut_is_named(store):
    blob = store.blobs.add(os.urandom(5000))
    path = store.blobs.path(blob.digest)
    os.truncate(path, 4000)
    assert look(store, blob) == f"blob {path} has 4000 bytes instead of 5000"
    path.unlink()
    assert look(store, blob) == f"blob {path} is gone"


def test_reading_can_be_stopped(store):
    blob = store.blobs.add(os.urandom(5000))
    store.blobs.stat_fingerprints.remove(store.blobs.path(blob.digest))
    with pytest.raises(StoppedError):
        look(store, blob, thorough=True, stopped=lambda: True)


def test_bytes_that_come_again_heal_a_blob(store):
    data = os.urandom(5000)
    path = store.blobs.path(store.blobs.add(data).digest)
    flip(path)
    assert not store.blobs.add(data).created
    assert path.read_bytes() == data


@pytest.mark.parametrize("text", ["", "{", "[]", '{"size": 1}', '{"what": 2}'])
def test_a_seal_that_makes_no_sense_is_none(store, text):
    blob = store.blobs.add(os.urandom(5000))
    path = store.blobs.path(blob.digest)
    (store.blobs.stat_fingerprints.folder / path.name).write_text(text)
    assert store.blobs.stat_fingerprints.state(path) is FileState.UNKNOWN
    assert look(store, blob, thorough=True) == ""
    assert store.blobs.stat_fingerprints.state(path) is FileState.UNCHANGED


def test_seals_go_with_their_blobs_and_unfinished_ones_with_the_hour(store):
    path = store.blobs.path(store.blobs.add(os.urandom(5000)).digest)
    unfinished = store.blobs.stat_fingerprints.folder / ".new-unfinished"
    unfinished.write_text("{")
    os.utime(unfinished, (0, 0))
    path.unlink()
    store.prune()
    assert list(store.blobs.stat_fingerprints.folder.iterdir()) == []


class TestFilesThatLieElsewhere:
    @pytest.fixture
    def elsewhere(self, store, tmp_path):
        content = os.urandom(100)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        (tmp_path / "a.gguf").write_bytes(content)
        store.blobs.folder.mkdir(parents=True)
        store.blobs.path(digest).symlink_to(tmp_path / "a.gguf")
        store.blobs.stat_fingerprints.write(
            store.blobs.path(digest), origin=str(tmp_path / "a.gguf"), place=Place.SYMBOLIC_LINK
        )
        return tmp_path / "a.gguf", digest

    def test_their_times_are_not_touched(self, store, elsewhere):
        path, digest = elsewhere
        os.utime(path, (1000, 1000))
        store.blobs.touch(digest)
        assert path.stat().st_mtime == 1000
        assert find_damage(store.blobs, digest, 100, thorough=False) == ""  # another time, and the same bytes
        assert store.blobs.stat_fingerprints.state(store.blobs.path(digest)) is FileState.UNCHANGED

    def test_they_are_named_when_they_are_gone_or_others(self, store, elsewhere):
        path, digest = elsewhere
        blob = store.blobs.path(digest)
        flip(path)
        said = find_damage(store.blobs, digest, 100, thorough=False)
        assert said.startswith(f"{path}, which is used in place as blob {blob.name}, has changed")
        path.unlink()
        assert find_damage(store.blobs, digest, 100, thorough=False).endswith("is gone")
