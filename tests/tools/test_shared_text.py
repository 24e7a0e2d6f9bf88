import sys

import pytest

from tools import shared_text

OURS = "the quick kuntur circles above seven snowy ridges while herders below count their grazing llamas twice"
THEIRS = "Note: the quick Kuntur circles, above seven snowy ridges, while herders below count sheep."


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    (ours / "poem.txt").write_text(f"first line\n{OURS}\n")
    (theirs / "song.md").write_text(THEIRS)
    monkeypatch.setattr(shared_text, "ROOT", ours)
    monkeypatch.setattr(shared_text, "ALLOWED", tmp_path / "allowed.toml")
    monkeypatch.setattr(sys, "argv", ["shared_text.py", str(theirs)])

    def run(allowed: str = "allowed = []") -> tuple[int, str]:
        (tmp_path / "allowed.toml").write_text(allowed)
        return shared_text.main(), capsys.readouterr().out

    return run


def test_a_shared_passage_is_listed_with_its_line_whatever_its_punctuation_and_case(run):
    status, out = run()
    assert status == 1
    assert "poem.txt:2: 12 tokens, also in theirs/song.md" in out


def test_an_entry_of_the_allow_list_covers_a_passage_that_contains_its_words(run):
    assert run('allowed = [{file = "*.txt", containing = "snowy ridges", reason = "test"}]')[0] == 0
    assert run('allowed = [{file = "*.txt", containing = "green hills", reason = "test"}]')[0] == 1
    assert run('allowed = [{file = "*.md", reason = "test"}]')[0] == 1


def test_rows_of_numbers_and_short_words_do_not_count():
    words = shared_text.tokens("1 2 3 4 5 6 7 8 9 10 11 12 13 a b c d e f g h i j k l m n").words
    assert list(shared_text.shingles(words)) == []
