"""Pictures that were seen lately."""

import numpy as np

from puna_llama_cpp.vision import embedding_cache
from puna_llama_cpp.vision.embedding_cache import Key, Seen, Shown, Size
from puna_llama_cpp.vision.image_tokens import Picture


def key(name):
    return Key(Shown("", name), 0, b"")


def keep(lately, name, rows=1):
    none = np.zeros((1, rows), np.int32)
    picture = Picture(lately.number(), np.zeros((rows, 4), np.float32), none, none, rows, True)
    lately.put(key(name), picture)
    return picture


def test_those_go_that_were_not_looked_at_for_longest(monkeypatch):
    monkeypatch.setattr(embedding_cache, "_KEPT_BYTES", 3 * 16)
    lately = Seen()
    pictures = {name: keep(lately, name) for name in "abc"}
    assert lately.get(key("a")) is pictures["a"]
    keep(lately, "d")
    assert [name for name in "abcd" if lately.get(key(name))] == ["a", "c", "d"]
    keep(lately, "large", rows=100)
    assert [name for name in "abcd" if lately.get(key(name))] == []
    assert lately.get(key("large"))


def test_no_two_have_the_same_number():
    lately = Seen()
    numbers = [keep(lately, "again").token for _ in range(50)]
    assert len(set(numbers)) == 50
    assert max(numbers) < 0


def test_sizes_are_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(embedding_cache, "_KEPT_SIZES", 2)
    lately = Seen()
    for number in (1, 2, 1, 3):
        lately.remember(Shown("salt", str(number)), Size(number, 5))
    assert lately.size(Shown("salt", "1")) == (1, 5)
    assert lately.size(Shown("salt", "2")) is None
    assert lately.size(Shown("", "1")) is None
