import pytest

from puna.plugins.table import ManifestError, Table, shown


def test_a_field_is_taken_once_and_those_that_are_left_are_refused():
    table = Table({"name": "a", "more": 1}, "host")
    assert table.text("name") == "a"
    with pytest.raises(ManifestError, match=r"^host\.more: a manifest has no such field here \(known: name\)$"):
        table.end()


def test_an_absent_field_has_its_default():
    table = Table({})
    assert (table.text("a", ""), table.texts("b"), table.whole("c", 3), table.flag("d", default=True)) == (
        "",
        (),
        3,
        True,
    )
    assert table.table("e").items() == []
    table.end()


def test_names_by_strangers_are_shown_in_plain_characters():
    assert shown("a\x1b[31m\nb") == "a?[31m?b"
    assert shown("x" * 61) == "x" * 60 + "…"
