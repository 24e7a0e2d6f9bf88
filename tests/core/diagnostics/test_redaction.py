import json

import pytest

from puna.diagnostics import redaction
from puna.diagnostics.redaction import Redaction


def test_passages_are_replaced_and_counted():
    found = Redaction([r"sk-\w+", r"(?i)pass=\S+"])
    assert found.text("é sk-1 and PASS=x sk-2") == ("é [redacted] and [redacted] [redacted]", 3)
    assert found.text("nothing") == ("nothing", 0)
    assert Redaction().text("sk-1") == ("sk-1", 0)


def test_json_stays_json():
    found = Redaction(["se.*"])
    text = '{"b": 1.50, "a": ["see \\"this\\"", {"sea": null}]}'
    redacted, count = found.json_text(text)
    assert json.loads(redacted) == {"b": 1.5, "a": ["[redacted]", {"[redacted]": None}]}
    assert count == 2
    # The spelling of numbers and the order of keys tell something, so they stay if nothing is removed.
    assert found.json_text('{"b": 1.50,"a":2}') == ('{"b": 1.50,"a":2}', 0)
    assert found.json_text("{se") == ("{[redacted]", 1)
    assert found.json_text('"se\\ud800"') == ('"[redacted]"', 1)


def test_a_pattern_takes_linear_time():
    # Python's own engine would not come to an end.
    assert Redaction(["(a+)+$"]).text("a" * 10_000 + "b") == ("a" * 10_000 + "b", 0)


def test_a_file_has_one_pattern_in_each_line(tmp_path):
    file = tmp_path / "patterns"
    file.write_text("# keys\nsk-\\w{2,3}\n\n")
    assert redaction.read(file).text("sk-abc") == ("[redacted]", 1)
    assert not redaction.read(None)


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"a\n(", r"patterns:2: missing \)"), (b"a*", "patterns:1: .*empty text"), (b"\xff", "not valid UTF-8")],
)
def test_a_bad_file_is_an_error_that_says_where(tmp_path, data, error, capfd):
    (tmp_path / "patterns").write_bytes(data)
    with pytest.raises(OSError, match=error):
        redaction.read(tmp_path / "patterns")
    assert capfd.readouterr().err == ""


def test_a_missing_file_or_library_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        redaction.read(tmp_path / "nosuch")
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    with pytest.raises(OSError, match=r"puna\[redaction\]"):
        Redaction(["a"])
