import os

import pytest

from puna.errors import TemplateError
from puna.models.facts.heads import Heads


def test_a_file_is_read_once_until_it_changes(tmp_path, make_gguf):
    path, heads = tmp_path / "a.gguf", Heads()
    path.write_bytes(make_gguf(("general.architecture", "str", "one")))
    first = heads.head(path)
    assert heads.head(path) is first
    assert heads.peek(path) is heads.peek(path)
    path.write_bytes(make_gguf(("general.architecture", "str", "two")))
    os.utime(path, (1, 1))
    assert heads.head(path).architecture == "two"


def test_a_template_is_parsed_once(tmp_path):
    heads = Heads()
    assert heads.template("{{ .Prompt }}") is heads.template("{{ .Prompt }}")
    with pytest.raises(TemplateError):
        heads.template("{{")


def test_what_was_not_wanted_for_long_is_forgotten():
    heads, made = Heads(capacity=2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        heads.remember(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]
