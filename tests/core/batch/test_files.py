import pytest
from tests.core import planted

from puna.errors import InvalidRequestError, NotFoundError, TooLargeError


def store(found, *chunks, owner="", name="a.jsonl"):
    writer = found.files.writer(owner, name, "batch")
    try:
        for each in chunks:
            writer.write(each)
        writer.flush()
        return writer.finish()
    finally:
        writer.close()


def content(found, file):
    with found.files.open(file.owner, file.id) as opened:
        return opened.read()


def test_a_file_survives_a_restart(open_batches):
    new = store(open_batches(), b"one", b"two", owner="key", name="../../etc/passwd")
    again = open_batches()
    assert again.files.get("key", new.id) == new
    assert (new.size, new.name, content(again, new)) == (6, "../../etc/passwd", b"onetwo")


def test_a_file_that_was_not_finished_leaves_nothing(open_batches, tmp_path):
    found = open_batches(max_stored_bytes=4)
    for _ in range(3):
        writer = found.files.writer("", "a", "batch")
        writer.write(b"four")
        writer.close()
    assert list((tmp_path / "batches" / "files").iterdir()) == []
    assert found.files.listed("") == []


@pytest.mark.parametrize(
    ("changed", "setting"),
    [
        ({"max_file_bytes": 3}, "PUNA_MAX_FILE_BYTES"),
        ({"max_stored_bytes": 5}, "PUNA_MAX_STORED_BYTES"),
        ({"max_stored_bytes_per_key": 5}, "PUNA_MAX_STORED_BYTES_PER_KEY"),
        ({"max_files": 1}, "PUNA_MAX_FILES"),
        ({"max_files_per_key": 1}, "PUNA_MAX_FILES_PER_KEY"),
    ],
)
def test_limits_hold(open_batches, changed, setting):
    found = open_batches(**changed)
    store(found, b"xy", owner="key")
    with pytest.raises(TooLargeError) as raised:
        store(found, b"ab", b"cd", owner="key")
    assert raised.value.info["setting"] == setting
    assert len(found.files.listed("key")) == 1


def test_names_are_bounded(open_batches):
    with pytest.raises(InvalidRequestError, match="name"):
        store(open_batches(), name="x" * 256)


def test_files_of_others_are_not_found(open_batches):
    found = open_batches()
    new = store(found, b"x", owner="one")
    for action in (found.files.get, found.files.open, found.files.delete):
        with pytest.raises(NotFoundError):
            action("other", new.id)
    assert found.files.listed("other") == []


def test_a_deleted_file_is_read_to_its_end(open_batches, tmp_path):
    found = open_batches()
    new = store(found, b"text")
    with found.files.open("", new.id) as opened:
        found.files.delete("", new.id)
        assert opened.read() == b"text"
    assert list((tmp_path / "batches" / "files").iterdir()) == []
    with pytest.raises(NotFoundError):
        found.files.get("", new.id)


def test_old_files_are_removed(open_batches, clock):
    found = open_batches(max_kept_seconds=10)
    store(found, b"old")
    clock.pass_(11)
    new = store(found, b"new")
    found.files.expire()
    assert found.files.listed("") == [new]


def test_only_the_owner_may_read_them(open_batches, tmp_path):
    store(open_batches(), b"x")
    for each in (tmp_path / "batches").rglob("*"):
        assert each.stat().st_mode & 0o777 == (0o700 if each.is_dir() else 0o600), each


def test_a_file_whose_description_has_unknown_fields_is_served(open_batches):
    found = open_batches()
    new = store(found, b"one")
    planted.change(found._folder.open() / "files" / new.id / "file.json", expires=1)
    again = open_batches()
    assert content(again, again.files.get("", new.id)) == b"one"
