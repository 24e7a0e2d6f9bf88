import pytest
from tests.core import planted
from tests.core.batch.conftest import make
from tests.core.batch.test_files import store

from puna.batch.core import Batches
from puna.batch.folder import Folder, Preparation, published, remove
from puna.formats import NewerFormatError


def test_one_server_uses_the_folder_at_a_time(open_batches, tmp_path):
    make(open_batches(), "a")
    with pytest.raises(OSError, match="another server uses the folder"):
        Batches(tmp_path / "batches")._folder.check()


def test_a_server_without_a_folder_keeps_nothing():
    with pytest.raises(OSError, match="no folder"):
        make(Batches(), "a")


def test_an_unused_folder_is_not_created(open_batches, tmp_path):
    open_batches()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_read_stays_unlocked(tmp_path):
    def fail():
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        Folder(tmp_path / "batches", fail).open()
    other = Folder(tmp_path / "batches")
    assert other.open() == tmp_path / "batches"
    other.close()


def test_what_was_not_published_is_removed(tmp_path):
    left, kept = Preparation(tmp_path, "left"), Preparation(tmp_path, "kept")
    for each in (left, kept):
        each.create("file").close()
    kept.publish()
    assert list(published(tmp_path)) == [tmp_path / "kept"]
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    remove(tmp_path / "kept")
    remove(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_newer_version_is_refused_and_stays_as_it_is(open_batches, tmp_path):
    found = open_batches()
    batch = make(found, "a", "b")
    store(found, b"content")
    # What this version would cut off or remove, if it took the folder for its own.
    with (batch.folder / "results").open("ab") as file:
        file.write(b"a record of another form")
    (tmp_path / "batches/batches/.index").mkdir()
    found._folder.close()
    planted.mark(tmp_path / "batches/format.json")
    (tmp_path / "batches/lock").unlink()
    before = planted.contents(tmp_path)
    again = Batches(tmp_path / "batches")
    for use in (again._folder.check, lambda: make(again, "c"), lambda: store(again, b"more")):
        with pytest.raises(NewerFormatError, match=r"batches/format.json has format version 2"):
            use()
    assert planted.contents(tmp_path) == before
