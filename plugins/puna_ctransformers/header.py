"""The metadata of a GGUF file that the library does not pass on."""

from pathlib import Path
from typing import Any, Final

from puna.gguf import reader
from puna.gguf.reader import Array, GGUFError

__all__ = ["GGUFError", "Header"]

_BYTES_OF_A_VALUE: Final = 2
"""The KV cache holds numbers of 16 bits."""


class Header:
    """Metadata of a model."""

    def __init__(self, path: Path) -> None:
        """Read it; tensors are not touched. Raises GGUFError and OSError."""
        # The vocabulary is an array, which the reader passes over by default.
        self._head = reader.read(path, arrays=True)
        self.file_bytes = path.stat().st_size

    def number(self, key: str, default: int = 0) -> int:
        """Return a number by its key. A key that is not general or the tokenizer's belongs to the architecture."""
        value = self._head.get(key)
        return int(value) if isinstance(value, int | float) else default

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean by its key."""
        value = self._head.get(key)
        return value if isinstance(value, bool) else default

    def text(self, key: str) -> str:
        """Return a text; empty if there is none."""
        return self._head.text(key)

    def numbers(self, key: str) -> tuple[int, ...]:
        """Return an array of integers; empty if there is none."""
        return tuple(int(each) for each in self._elements(key))

    def texts(self, key: str) -> tuple[bytes, ...]:
        """Return an array of texts as bytes, since a token need not be UTF-8; empty if there is none."""
        return tuple(str(each).encode("utf-8", "surrogateescape") for each in self._elements(key))

    def cache_bytes(self, context_length: int) -> int:
        """Return the bytes of the KV cache for a context of `context_length` tokens."""
        heads = self.number("attention.head_count", 1)
        width = self.number("embedding_length") // heads * self.number("attention.head_count_kv", heads)
        # Twice: once for keys and once for values.
        return 2 * _BYTES_OF_A_VALUE * self.number("block_count") * context_length * width

    def _elements(self, key: str) -> tuple[Any, ...]:
        value = self._head.get(key)
        return value.values or () if isinstance(value, Array) else ()
