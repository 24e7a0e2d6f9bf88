"""The metadata at the start of a GGUF file, as far as the library itself does not tell it."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

Value: TypeAlias = int | float | bool | bytes | tuple[Any, ...] | list[Any]

MAGIC = b"GGUF"
TEXT, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""Value types by their number."""


class Header:
    """Metadata of a model. ValueError: the file is no GGUF of version 2 or 3."""

    def __init__(self, path: Path) -> None:
        """Read it; tensors are not touched."""
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ValueError("not a GGUF file")
            try:
                self.values: Mapping[str, Any] = _read(file)
            except struct.error as error:
                raise ValueError("the GGUF file is cut off") from error
        self.file_bytes = path.stat().st_size

    def number(self, key: str, default: int = 0) -> int:
        """Return a number of the architecture, by its key without the architecture's name."""
        return int(self.values.get(f"{self.text('general.architecture')}.{key}", default))

    def text(self, key: str) -> str:
        """Return a text; empty if there is none."""
        return bytes(self.values.get(key, b"")).decode(errors="replace")

    def cache_bytes(self, context_length: int) -> int:
        """Return what keys and values take in memory for a context of so many tokens, at 16 bits."""
        heads = self.number("attention.head_count", 1)
        width = self.number("embedding_length") // heads * self.number("attention.head_count_kv", heads)
        return 2 * 2 * self.number("block_count") * context_length * width


def _read(file: BinaryIO) -> dict[str, Any]:
    version, _, count = _unpack(file, "<I"), _unpack(file, "<Q"), _unpack(file, "<Q")
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version} is not supported")
    return {_text(file).decode(errors="replace"): _value(file, _unpack(file, "<I")) for _ in range(count)}


def _value(file: BinaryIO, kind: int) -> Value:
    if kind == TEXT:
        return _text(file)
    if kind == ARRAY:
        item, length = _unpack(file, "<I"), _unpack(file, "<Q")
        if item in SCALARS:
            code = SCALARS[item]
            return struct.unpack(f"<{length}{code[1]}", file.read(length * struct.calcsize(code)))
        return [_value(file, item) for _ in range(length)]
    if kind in SCALARS:
        return cast(Value, _unpack(file, SCALARS[kind]))
    raise ValueError(f"unknown value type {kind}")


def _text(file: BinaryIO) -> bytes:
    return file.read(_unpack(file, "<Q"))


def _unpack(file: BinaryIO, code: str) -> Any:  # noqa: ANN401 (what the code says)
    return struct.unpack(code, file.read(struct.calcsize(code)))[0]
