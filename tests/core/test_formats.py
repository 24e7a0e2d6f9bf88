import pytest

from puna import formats
from puna.formats import Format, Marker, NewerFormatError

KIND = Format("boxes", 3, "take another box")


@pytest.fixture
def marker(tmp_path):
    return Marker(tmp_path / formats.MARKER, KIND, 0o640)


def test_older_and_current_versions_are_known(tmp_path):
    assert [KIND.check(tmp_path, each) for each in ({}, {"version": 1}, {"version": 3, "more": 4})] == [0, 1, 3]


def test_a_newer_version_is_an_error_that_says_what_to_do(tmp_path):
    path = tmp_path / "box"
    with pytest.raises(NewerFormatError) as caught:
        KIND.check(path, {"version": 4})
    text = caught.value.strerror
    assert text.startswith(f"{path} has format version 4, and this version of Puna knows 3 at most")
    assert text.endswith("Run the newer version, or take another box")


@pytest.mark.parametrize("version", ["3", 3.5, True, -1, None])
def test_a_version_is_a_whole_number(tmp_path, version):
    with pytest.raises(ValueError, match="whole number"):
        KIND.check(tmp_path, {"version": version})


def test_fields_beside_the_version_are_kept():
    assert list(KIND.versioned({"a": 1, "version": 2}).items()) == [("version", 3), ("a", 1)]
    assert Format("boxes", 3, "", "format").versioned({"version": "1.0"}) == {"format": 3, "version": "1.0"}


def test_a_marker_is_written_once(marker):
    assert marker.check() is None
    marker.write()
    assert marker.check() == 3
    assert marker.path.stat().st_mode & 0o777 == 0o640
    inode = marker.path.stat().st_ino
    marker.write()
    assert marker.path.stat().st_ino == inode


def test_the_marker_of_an_older_version_is_replaced(marker):
    marker.path.write_text('{"version": 2}')
    marker.write()
    assert marker.check() == 3


@pytest.mark.parametrize("content", ['{"version": 4}', "", "[]", "{}", '{"version": "x"}', "\x00"])
def test_a_newer_or_damaged_marker_stays_as_it_is(marker, content):
    marker.path.write_text(content)
    for use in (marker.check, marker.write):
        with pytest.raises(OSError, match=r"format version 4|not a format marker"):
            use()
    assert marker.path.read_text() == content


def test_a_file_in_the_place_of_a_folder_has_no_marker(tmp_path):
    (tmp_path / "store").write_text("")
    assert formats.store_marker(tmp_path / "store").check() is None
