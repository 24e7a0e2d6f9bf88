import hashlib
import os

import pytest

from puna.errors import TransferError
from puna.models.registry.partial import PartialBlob
from puna.models.registry.parts import Part


@pytest.fixture
def partial(tmp_path):
    blob = PartialBlob(tmp_path / "blobs" / ("sha256-" + "a" * 64))
    assert blob.lock()
    yield blob
    blob.close()


def names(partial):
    return sorted(path.name[71:] for path in partial.final.parent.iterdir())


def test_a_blob_comes_together(partial):
    partial.begin([Part(0, 0, 4), Part(1, 4, 3)])
    assert names(partial) == ["-partial", "-partial-0", "-partial-1"]
    assert partial.path.stat().st_size == 7
    partial.write(b"efg", 4)
    partial.write(b"abcd", 0)
    assert partial.digest(lambda: False) == "sha256:" + hashlib.sha256(b"abcdefg").hexdigest()
    partial.publish()
    assert partial.final.read_bytes() == b"abcdefg"
    assert names(partial) == [""]


def test_what_is_noted_is_known_again(partial):
    partial.begin([Part(0, 0, 4), Part(1, 4, 3)])
    partial.note([Part(1, 4, 3, 2)])
    assert partial.resume() == (Part(0, 0, 4), Part(1, 4, 3, 2))


def test_a_shortened_file_is_empty(partial):
    partial.begin([Part(0, 0, 4)])
    partial.note([Part(0, 0, 4, 4)])
    os.truncate(partial.path, 3)
    assert partial.resume() == (Part(0, 0, 4),)
    assert partial.path.stat().st_size == 4


def test_one_at_a_time(partial):
    other = PartialBlob(partial.final)
    assert not other.lock()
    partial.close()
    assert other.lock()
    other.close()


def test_the_lock_of_a_file_that_is_done_is_none(partial, monkeypatch):
    other = PartialBlob(partial.final)
    # Between opening and locking, the first one settles.
    import fcntl

    flock = fcntl.flock

    def late(file, how):
        monkeypatch.undo()
        partial.publish()
        partial.close()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert not other.lock()


def test_discarding_leaves_nothing(partial):
    partial.begin([Part(0, 0, 4)])
    partial.discard()
    assert names(partial) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TransferError, match=r"^open .*-partial: (not a directory|file exists)$"):
        PartialBlob(tmp_path / "file" / "blobs" / "sha256-x").lock()
