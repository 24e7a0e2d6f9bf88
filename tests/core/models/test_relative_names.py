import pytest

from puna.models.relative_names import check_names


@pytest.mark.parametrize(
    "names",
    [
        ["config.json"],
        ["a/b/c.bin", "a/b/d.bin", "a.bin"],
        ["name with spaces", "ünïcode.json", "日本.txt", "..hidden", "a..b", "-x"],
        ["x" * 255, "/".join(["y" * 100] * 10)],
        [],
    ],
)
def test_names_that_fit_into_one_folder_on_any_machine(names):
    check_names(names)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/etc/passwd", "a//b", "a/", "./a", "a/../b", "a/..", "../a"),
        *("a\0b", "a\nb", "a\\b", "\ud800", "\x7f", "x" * 256, "é" * 128, "/".join(["y" * 100] * 11)),
    ],
)
def test_names_that_are_not_safe(name):
    with pytest.raises(ValueError, match=r"^the file name '"):
        check_names(["good", name])


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a"],
        ["a", "A"],
        ["straße", "STRASSE"],
        ["é", "e\u0301"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["A/b", "a"],
        ["a/x", "A/y"],
    ],
)
def test_names_that_some_file_systems_do_not_tell_apart(names):
    with pytest.raises(ValueError, match="clashes"):
        check_names(names)


def test_names_that_no_manifest_has_room_for():
    names = [f"{number:05}/{'x' * 250}" for number in range(2000)]
    check_names(names)
    with pytest.raises(ValueError, match="together"):
        check_names([*names, *(f"{number:05}/y{'x' * 250}" for number in range(100))])
