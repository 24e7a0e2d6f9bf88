import os

import pytest

from puna.errors import TemplateError
from puna.models.facts.header_cache import HeaderCache


def test_a_file_is_read_once_until_it_changes(tmp_path, make_gguf):
    path, header_cache = tmp_path / "a.gguf", HeaderCache()
    path.write_bytes(make_gguf(("general.architecture", "str", "one")))
    first = header_cache.header(path)
    assert header_cache.header(path) is first
    assert header_cache.peek(path) is header_cache.peek(path)
    path.write_bytes(make_gguf(("general.architecture", "str", "two")))
    os.utime(path, (1, 1))
    assert header_cache.header(path).architecture == "two"


def test_a_template_is_parsed_once(tmp_path):
    header_cache = HeaderCache()
    assert header_cache.template("{{ .Prompt }}") is header_cache.template("{{ .Prompt }}")
    with pytest.raises(TemplateError):
        header_cache.template("{{")


def test_what_was_not_wanted_for_long_is_forgotten():
    header_cache, made = HeaderCache(capacity=2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        header_cache.get_or_make(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]
