"""The cache of encoded images: what is evicted, and when."""

import numpy as np

from puna_llama_cpp.vision import embedding_cache
from puna_llama_cpp.vision.embedding_cache import ChunkKey, EmbeddingCache, ImageKey, ImageSize
from puna_llama_cpp.vision.image_tokens import ImageChunk


def key(name):
    return ChunkKey(ImageKey("", name), 0, b"")


def keep(cache, name, rows=1):
    none = np.zeros((1, rows), np.int32)
    chunk = ImageChunk(cache.new_token(), np.zeros((rows, 4), np.float32), none, none, rows, True)
    cache.put(key(name), chunk)
    return chunk


def test_those_go_that_were_not_looked_at_for_longest(monkeypatch):
    monkeypatch.setattr(embedding_cache, "_MAX_BYTES", 3 * 16)
    cache = EmbeddingCache()
    chunks = {name: keep(cache, name) for name in "abc"}
    assert cache.get(key("a")) is chunks["a"]
    keep(cache, "d")
    assert [name for name in "abcd" if cache.get(key(name))] == ["a", "c", "d"]
    keep(cache, "large", rows=100)
    assert [name for name in "abcd" if cache.get(key(name))] == []
    assert cache.get(key("large"))


def test_no_two_have_the_same_number():
    cache = EmbeddingCache()
    numbers = [keep(cache, "again").token for _ in range(50)]
    assert len(set(numbers)) == 50
    assert max(numbers) < 0


def test_sizes_are_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(embedding_cache, "_MAX_SIZES", 2)
    cache = EmbeddingCache()
    for new_token in (1, 2, 1, 3):
        cache.put_size(ImageKey("salt", str(new_token)), ImageSize(new_token, 5))
    assert cache.size(ImageKey("salt", "1")) == (1, 5)
    assert cache.size(ImageKey("salt", "2")) is None
    assert cache.size(ImageKey("", "1")) is None
