"""What was seen lately: pictures that need not be encoded, nor even unpacked, when they are shown again."""

import itertools
import threading
from collections import OrderedDict
from typing import NamedTuple

from puna_llama_cpp.vision.image_tokens import Picture

_KEPT_BYTES = 256 * 1024 * 1024
_KEPT_SIZES = 4096


class Shown(NamedTuple):
    """A picture that somebody showed."""

    salt: str
    digest: str


class Size(NamedTuple):
    """How large a picture is, in pixels."""

    width: int
    height: int


class Key(NamedTuple):
    """A part of a picture."""

    shown: Shown
    part: int
    origin: bytes
    """Its vectors' positions, which say how many there are too."""


class Seen:
    """Pictures that were encoded lately, as many as fit. Each gets a number that no other has had."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Shown, Size] = OrderedDict()
        self._pictures: OrderedDict[Key, Picture] = OrderedDict()
        self._numbers = itertools.count(-2, -1)
        self._bytes = 0

    def get(self, key: Key) -> Picture | None:
        """Return a part of a picture, if it is there still."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def size(self, shown: Shown) -> Size | None:
        """Return how large a picture is that was seen as a whole; parts of it may be gone."""
        with self._lock:
            return self._sizes.get(shown)

    def remember(self, shown: Shown, size: Size) -> None:
        """Note how large a picture is that was seen as a whole."""
        with self._lock:
            self._sizes[shown] = size
            self._sizes.move_to_end(shown)
            if len(self._sizes) > _KEPT_SIZES:
                self._sizes.popitem(last=False)

    def number(self) -> int:
        """Return a number for a new picture, below zero."""
        return next(self._numbers)

    def put(self, key: Key, picture: Picture) -> None:
        """Keep a part of a picture, and drop what was not looked at for longest."""
        with self._lock:
            self._pictures[key] = picture
            self._bytes += picture.vectors.nbytes
            while self._bytes > _KEPT_BYTES and len(self._pictures) > 1:
                self._bytes -= self._pictures.popitem(last=False)[1].vectors.nbytes
