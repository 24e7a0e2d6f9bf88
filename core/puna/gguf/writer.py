"""Writing GGUF files from others: shards are joined, or a key of metadata is added. Tensor data is copied unchanged."""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from puna.gguf.reader import DEFAULT_ALIGNMENT, GGUF, MAGIC, Array, GGUFError, Tensor, read
from puna.gguf.types import ARRAY, SCALARS, STRING, U64

VERSION: Final = 3
_CHUNK: Final = 1 << 20
_BLOCK: Final = re.compile(r"blk\.(\d+)\.")
_AFTER_BLOCKS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Part:
    """A file whose tensors are copied."""

    path: Path
    head: GGUF


def with_text(part: Part, key: str, text: str, target: BinaryIO) -> None:
    """Write a copy of a file with one more string in its metadata."""
    for _ in _write(part.head, {key: (STRING, text)}, frozenset(), [part], target):
        pass


def joined(shards: Sequence[Path], target: Path) -> Iterator[tuple[int, int]]:
    """Write the shards of a split file as one file, with the first shard's metadata without the keys about
    splitting. Yield the bytes of tensors that are written, and of all."""
    parts = [Part(path, read(path, arrays=True)) for path in shards]
    dropped = frozenset(key for key in parts[0].head.metadata if key.startswith("split."))
    with target.open("wb") as file:
        yield from _write(parts[0].head, {}, dropped, parts, file)


def _write(
    head: GGUF, added: Mapping[str, tuple[int, Any]], dropped: frozenset[str], parts: Sequence[Part], target: BinaryIO
) -> Iterator[tuple[int, int]]:
    placed: list[tuple[Part, Tensor, Tensor]] = []
    offset = 0
    found = [(part, tensor) for part in parts for tensor in part.head.tensors]
    # The order, like that of the keys below, is Ollama's, so that both servers store the same bytes.
    for part, tensor in sorted(found, key=lambda each: _rank(each[1].name)):
        placed.append((part, tensor, replace(tensor, offset=offset)))
        offset += tensor.size + -tensor.size % DEFAULT_ALIGNMENT
    pairs = {key: (head.kinds[key], value) for key, value in head.metadata.items() if key not in dropped}
    pairs |= added
    pairs["general.parameter_count"] = (U64, head.parameter_count)  # of the first shard alone, as Ollama has it
    pairs.pop("general.alignment", None)  # ours is the default
    out = [MAGIC, struct.pack("<IQQ", VERSION, len(placed), len(pairs))]
    for key in sorted(pairs):
        kind, value = pairs[key]
        out += [_string(key), struct.pack("<I", kind), _value(kind, value)]
    for _, _, tensor in placed:
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        out += [_string(tensor.name), shape, struct.pack("<IQ", tensor.kind, tensor.offset)]
    data = b"".join(out)
    written = target.write(data + bytes(-len(data) % DEFAULT_ALIGNMENT))
    start = written
    for part, source, tensor in placed:
        # Zeros up to the alignment of the next tensor.
        written += target.write(bytes(start + tensor.offset - written))
        written += _copy(part, source, target)
        yield tensor.offset + tensor.size, offset


def _rank(name: str) -> tuple[int, str]:
    """Return the sort key of a tensor in Ollama's order: tensors of blocks first, by block, then by name."""
    match = _BLOCK.match(name)
    return (int(match[1]) if match else _AFTER_BLOCKS, name)


def _copy(part: Part, tensor: Tensor, target: BinaryIO) -> int:
    left = tensor.size
    with part.path.open("rb") as file:
        file.seek(part.head.data_start + tensor.offset)
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise GGUFError("unexpected EOF")
            left -= target.write(chunk)
    return tensor.size


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: object) -> bytes:
    if kind == STRING:
        return _string(str(value))
    if kind != ARRAY:
        return SCALARS[kind].pack(value)
    if not isinstance(value, Array) or value.values is None:
        raise ValueError("an array that was not read cannot be written")
    elements = [_value(value.kind, each) for each in value.values]
    return struct.pack("<IQ", value.kind, value.length) + b"".join(elements)
