"""The image-embedding cache: images that were encoded lately need not be encoded again, nor even unpacked.

A chat sends all of its images again with every turn, and encoding one takes seconds. Images are known by the SHA-256 of
their file and by the request's cache salt, so no request learns from timing what another user has sent. One image may
become several chunks, which are cached on their own.

A second cache holds the sizes of images. mtmd needs only an image's size to lay out its chunks, so an image whose
chunks are all cached is not decoded at all. If a chunk turns out to be missing, the prompt is encoded again from the
files.
"""

import itertools
import threading
from collections import OrderedDict
from typing import NamedTuple

from puna_llama_cpp.vision.image_tokens import ImageChunk

_MAX_BYTES = 256 * 1024 * 1024
_MAX_SIZES = 4096


class ImageKey(NamedTuple):
    """Identifies an image by its file and the request's salt."""

    salt: str
    digest: str


class ImageSize(NamedTuple):
    """The size of an image in pixels."""

    width: int
    height: int


class ChunkKey(NamedTuple):
    """Identifies a chunk of an image by its place in the image and its positions."""

    key: ImageKey
    part: int
    base_positions: bytes
    """The positions of the chunk's vectors, and so also their number.

    With some projectors they depend on the images before.
    """


class EmbeddingCache:
    """Keeps the vectors of recent images within a bound on memory. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizes: OrderedDict[ImageKey, ImageSize] = OrderedDict()
        self._chunks: OrderedDict[ChunkKey, ImageChunk] = OrderedDict()
        # -1 is left out: it is llama.cpp's id for "no token".
        self._next_token = itertools.count(-2, -1)
        self._bytes = 0

    def get(self, key: ChunkKey) -> ImageChunk | None:
        """Return a chunk, or None if it is not cached."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def size(self, key: ImageKey) -> ImageSize | None:
        """Return the size of an image that was encoded as a whole, or None. Some of its chunks may be gone."""
        with self._lock:
            return self._sizes.get(key)

    def put_size(self, key: ImageKey, size: ImageSize) -> None:
        """Record the size of an image that was encoded as a whole."""
        with self._lock:
            self._sizes[key] = size
            self._sizes.move_to_end(key)
            if len(self._sizes) > _MAX_SIZES:
                self._sizes.popitem(last=False)

    def new_token(self) -> int:
        """Return a token id for a new chunk: below zero, and never the same twice."""
        return next(self._next_token)

    def put(self, key: ChunkKey, chunk: ImageChunk) -> None:
        """Add a chunk, and evict the least recently used ones. The newest stays even if it exceeds the bound alone."""
        with self._lock:
            self._chunks[key] = chunk
            # The projector encodes under a lock after a second look, so no key is put while it is here, and no bytes
            # count twice.
            self._bytes += chunk.vectors.nbytes
            while self._bytes > _MAX_BYTES and len(self._chunks) > 1:
                self._bytes -= self._chunks.popitem(last=False)[1].vectors.nbytes
