import pytest

from puna.batch import records
from puna.batch.records import Record

THREE = [Record(0, 1, False, b"one"), Record(2, 7, True, b""), Record(3, 2, False, bytes(5000))]


def stored(path, found=THREE):
    for each in found:
        records.append(path, each.encode())
    return path.read_bytes()


def test_records_come_back_in_order(tmp_path):
    stored(tmp_path / "log")
    assert list(records.whole(tmp_path / "log")) == THREE
    assert (tmp_path / "log").stat().st_size == sum(each.size for each in THREE)


def test_a_missing_file_has_no_records(tmp_path):
    assert list(records.whole(tmp_path / "log")) == list(records.recover(tmp_path / "log")) == []


def test_only_the_owner_may_read_them(tmp_path):
    stored(tmp_path / "log")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_cut_anywhere_keeps_the_whole_records_before(tmp_path):
    path = tmp_path / "log"
    data = stored(path, THREE[:2])
    for length in range(len(data)):
        path.write_bytes(data[:length])
        kept = THREE[: int(length >= THREE[0].size)]
        assert list(records.recover(path)) == kept
        # What is appended next is found, which it would not be behind a part of a record.
        records.append(path, THREE[2].encode())
        assert list(records.whole(path)) == [*kept, THREE[2]]


@pytest.mark.parametrize("place", range(THREE[0].size))
def test_a_changed_byte_makes_a_record_invalid(tmp_path, place):
    data = bytearray(stored(tmp_path / "log", THREE[:1]))
    data[place] ^= 1
    (tmp_path / "log").write_bytes(data)
    assert list(records.whole(tmp_path / "log")) == []


def test_a_full_disk_leaves_no_part_of_a_record(tmp_path, monkeypatch):
    path = tmp_path / "log"
    stored(path, THREE[:1])
    write = records.os.write

    def part(descriptor, data):
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:4950])

    monkeypatch.setattr(records.os, "write", part)
    with pytest.raises(OSError, match="No space"):
        records.append(path, THREE[2].encode())
    monkeypatch.undo()
    assert path.stat().st_size == THREE[0].size


def test_a_rewritten_file_has_the_records_to_keep(tmp_path):
    path = tmp_path / "log"
    stored(path)
    records.rewrite(path, lambda record: not record.flag)
    assert list(records.whole(path)) == [THREE[0], THREE[2]]
    assert [each.name for each in tmp_path.iterdir()] == ["log"]
    assert path.stat().st_mode & 0o777 == 0o600
