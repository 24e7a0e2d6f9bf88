"""What was seen lately: images that need not be encoded, nor even unpacked, when they are shown again."""

import itertools
import threading
from collections import OrderedDict
from typing import NamedTuple

from puna_llama_cpp.vision.image_tokens import ImageChunk

_MAX_BYTES = 256 * 1024 * 1024
_MAX_SIZES = 4096


class ImageKey(NamedTuple):
    """An image that somebody showed."""

    salt: str
    digest: str


class ImageSize(NamedTuple):
    """How large an image is, in pixels."""

    width: int
    height: int


class ChunkKey(NamedTuple):
    """A part of an image."""

    key: ImageKey
    part: int
    base_positions: bytes
    """Its vectors' positions, which say how many there are too."""


class EmbeddingCache:
    """Images that were encoded lately, as many as fit. Each gets a number that no other has had."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._sizes: OrderedDict[ImageKey, ImageSize] = OrderedDict()
        self._chunks: OrderedDict[ChunkKey, ImageChunk] = OrderedDict()
        self._next_token = itertools.count(-2, -1)
        self._bytes = 0

    def get(self, key: ChunkKey) -> ImageChunk | None:
        """Return a part of an image, if it is there still."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def size(self, key: ImageKey) -> ImageSize | None:
        """Return how large an image is that was seen as a whole; parts of it may be gone."""
        with self._lock:
            return self._sizes.get(key)

    def put_size(self, key: ImageKey, size: ImageSize) -> None:
        """Note how large an image is that was seen as a whole."""
        with self._lock:
            self._sizes[key] = size
            self._sizes.move_to_end(key)
            if len(self._sizes) > _MAX_SIZES:
                self._sizes.popitem(last=False)

    def new_token(self) -> int:
        """Return a number for a new image, below zero."""
        return next(self._next_token)

    def put(self, key: ChunkKey, chunk: ImageChunk) -> None:
        """Keep a part of an image, and drop what was not looked at for longest."""
        with self._lock:
            self._chunks[key] = chunk
            self._bytes += chunk.vectors.nbytes
            while self._bytes > _MAX_BYTES and len(self._chunks) > 1:
                self._bytes -= self._chunks.popitem(last=False)[1].vectors.nbytes
