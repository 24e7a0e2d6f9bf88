"""Reading the header of a GGUF file: its metadata and the list of its tensors, never the tensors' data.

A file begins with a magic number, a version, the counts of tensors and of metadata pairs, then the pairs (key, type,
value), then the descriptions of the tensors, and after padding the data. Strings and arrays carry their lengths in
front, so a value can be skipped without being decoded.

Vocabularies are most of a header, 150,000 strings and more, and only a verbose `show` wants them. So arrays are skipped
unless asked for, and a list of models reads only up to the first `tokenizer.` key (`peek`).

The file is not trusted. Every length is checked against a bound and against the size of the file before memory is taken
for it. The header is read in blocks and never mapped into memory: touching a page of a mapped file that has been
truncated kills the process with SIGBUS, and the core must survive every file.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

from puna.errors import PunaError
from puna.gguf.types import ARRAY, F32, FILE_TYPES, SCALARS, STRING, TENSOR_TYPES, U32, UNKNOWN
from puna.go.json import Float32

MAGIC: Final = b"GGUF"
MAGIC_SWAPPED: Final = b"FUGG"
MAX_STRING: Final = 16 << 20
MAX_ARRAY: Final = 64 << 20
MAX_DIMENSIONS: Final = 4
MAX_PAIRS: Final = 1 << 16
MAX_TENSORS: Final = 1 << 17
MAX_STRINGS: Final = 1 << 24
"""Strings in all arrays of a header, a second of work. The largest vocabularies have a million."""
MAX_TEXT: Final = 64 << 20
"""Bytes of all strings that are kept in memory."""
MAX_ELEMENTS: Final = 1 << 23
"""Elements of all arrays that are kept in memory."""
DEFAULT_ALIGNMENT: Final = 32
_FIRST_BLOCK: Final = 64 << 10
_LARGEST_BLOCK: Final = 1 << 20
"""Bytes that are read at once. Blocks double from the first size to the largest. A list needs one for most files."""


class GGUFError(PunaError):
    """The file is not readable as GGUF."""

    reason = "MODEL_UNREADABLE"


@dataclass(frozen=True, slots=True)
class Array:
    """An array of metadata: the number of its element type, its length, and its elements if they were read."""

    kind: int
    length: int
    values: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class Tensor:
    """The description of a tensor."""

    name: str
    kind: int
    """The number of its type."""
    shape: tuple[int, ...]
    """Innermost dimension first."""
    offset: int
    """Bytes from the start of the tensor data."""

    @property
    def type(self) -> str:
        """Name of its type, such as "Q8_0"."""
        return TENSOR_TYPES[self.kind][0] if self.kind in TENSOR_TYPES else UNKNOWN

    @property
    def elements(self) -> int:
        """The count of its elements."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of its data in the file. Raises GGUFError for an unknown type."""
        if self.kind not in TENSOR_TYPES:
            raise GGUFError(f'tensor "{self.name}" size overflow')
        _, block, width = TENSOR_TYPES[self.kind]
        return self.elements * width // block


@dataclass(frozen=True, slots=True)
class GGUF:
    """The header of a file."""

    metadata: Mapping[str, object]
    """Values by key, in the file's order: int, Float32, float, bool, str or Array. Bytes that are not UTF-8 are
    surrogates."""
    kinds: Mapping[str, int]
    """Type numbers of the values by key."""
    tensors: tuple[Tensor, ...]
    data_start: int
    """Offset of the tensor data in the file, in bytes."""

    @property
    def architecture(self) -> str:
        """`general.architecture`, or "unknown"."""
        return _architecture(self.metadata)

    @property
    def parameter_count(self) -> int:
        """The count of the elements of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def file_type(self) -> str:
        """Name of the quantization; "unknown" if the file does not say."""
        value = self.metadata.get("general.file_type")
        return file_type_name(value) if type(value) is int else UNKNOWN

    @property
    def written_file_type(self) -> str:
        """The quantization as Ollama stores it: "unknown" for F32 too, whose number is 0."""
        key = "general.file_type"
        return self.file_type if self.kinds.get(key) == U32 and self.metadata[key] else UNKNOWN

    def key(self, name: str) -> str:
        """Return the full key: the architecture's name is put before a key that begins with neither general. nor
        tokenizer."""
        return name if name.startswith(("general.", "tokenizer.")) else f"{self.architecture}.{name}"

    def get(self, name: str) -> object:
        """Return the value of a key, completed by `key`; None if there is none."""
        return self.metadata.get(self.key(name))

    def has(self, name: str) -> bool:
        """Return whether there is such a key, completed by `key`."""
        return self.key(name) in self.metadata

    def text(self, name: str) -> str:
        """Return a string value; empty if there is none or it is no string."""
        value = self.get(name)
        return value if isinstance(value, str) else ""

    def integer(self, name: str) -> int:
        """Return an integer value; 0 if there is none or it is no integer."""
        value = self.get(name)
        return value if type(value) is int else 0


def file_type_name(number: int) -> str:
    """Return the name of a value of `general.file_type`."""
    return FILE_TYPES.get(number, UNKNOWN)


def is_gguf(path: Path) -> bool:
    """Return whether the file begins with the magic number of GGUF. Raises OSError."""
    with path.open("rb") as file:
        return file.read(4) in (MAGIC, MAGIC_SWAPPED)


def read(path: Path, *, arrays: bool = False, tokenizer: bool = True) -> GGUF:
    """Read the header of a file, with the elements of arrays if `arrays`. Raises GGUFError and OSError.

    Without `tokenizer`, its arrays are skipped, which are most of the header.
    """
    with path.open("rb") as file:
        return _Reader(file).gguf(arrays=arrays, tokenizer=tokenizer)


def peek(path: Path) -> GGUF:
    """Read the metadata before the tokenizer's, without tensors. A list needs no more. Raises GGUFError and OSError."""
    with path.open("rb") as file:
        metadata: dict[str, object] = {}
        kinds: dict[str, int] = {}
        for key, kind, value in _Reader(file).metadata(arrays=False, until="tokenizer."):
            metadata[key], kinds[key] = value, kind
        return GGUF(metadata, kinds, (), 0)


def _architecture(metadata: Mapping[str, object]) -> str:
    value = metadata.get("general.architecture")
    return value if isinstance(value, str) and value else UNKNOWN


class _Reader:
    """A reader that only moves forward. In version 1 counts have 32 bits and strings end with a zero byte.

    `_buffer` holds the block of the file that begins at byte `_base`, and `_at` is the position in the buffer.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Ollama reports an empty file as EOF and any other foreign file by its magic number.
        self._size = file.seek(0, 2)
        if self._size == 0:
            raise GGUFError("EOF")
        file.seek(0)
        self._base = 0
        self._block_size = _FIRST_BLOCK
        self._buffer = file.read(_FIRST_BLOCK)
        self._at = 4
        magic = self._buffer[:4]
        if magic not in (MAGIC, MAGIC_SWAPPED):
            raise GGUFError("invalid file magic")
        # Files of big-endian machines begin with the magic number reversed.
        self._swap = magic == MAGIC_SWAPPED
        version = self._integer(self._u32)
        self._count = self._ordered(struct.Struct("<I" if version == 1 else "<Q"))
        self._ends_in_nul = version == 1
        self._tensors = self._bounded("tensor count", self._integer(self._count), MAX_TENSORS)
        self._pairs = self._bounded("metadata count", self._integer(self._count), MAX_PAIRS)
        self._text = 0
        self._strings = 0
        self._elements = 0

    @staticmethod
    def _bounded(what: str, number: int, most: int) -> int:
        if number > most:
            raise GGUFError(f"{what} {number} exceeds maximum {most}")
        return number

    def gguf(self, *, arrays: bool, tokenizer: bool = True) -> GGUF:
        metadata: dict[str, object] = {}
        kinds: dict[str, int] = {}
        for key, kind, value in self.metadata(arrays=arrays, tokenizer=tokenizer):
            metadata[key], kinds[key] = value, kind
        tensors = tuple([self._tensor() for _ in range(self._tensors)])
        alignment = metadata.get("general.alignment")
        if not isinstance(alignment, int) or alignment <= 0:
            alignment = DEFAULT_ALIGNMENT
        position = self._base + self._at
        start = position + -position % alignment
        for tensor in tensors:
            # A truncated file is found here, before an engine maps it and dies of SIGBUS.
            end = start + tensor.offset + tensor.size
            if end > self._size:
                raise GGUFError(f'tensor "{tensor.name}" offset+size ({end}) exceeds file size ({self._size})')
        return GGUF(metadata, kinds, tensors, start)

    def metadata(self, *, arrays: bool, tokenizer: bool = True, until: str = "") -> Iterator[tuple[str, int, object]]:
        """Yield keys, types and values. Stop before the first key with the prefix `until` once the architecture is
        known."""
        architecture = False
        for _ in range(self._pairs):
            key = self._string()
            # Before the architecture is known the keys of the model cannot be told apart.
            if until and architecture and key.startswith(until):
                return
            architecture = architecture or key == "general.architecture"
            kind = self._integer(self._u32)
            yield key, kind, self._value(kind, arrays=arrays and (tokenizer or not key.startswith("tokenizer.")))

    @property
    def _u32(self) -> struct.Struct:
        return self._ordered(SCALARS[4])

    def _ordered(self, form: struct.Struct) -> struct.Struct:
        return struct.Struct(">" + form.format[1:]) if self._swap else form

    def _has(self, count: int) -> bool:
        """Bring the next `count` bytes into `_buffer`. Return whether the file has as many."""
        missing = self._at + count - len(self._buffer)
        if missing > 0:
            self._base += self._at
            self._block_size = min(2 * self._block_size, _LARGEST_BLOCK)
            # Never less than a block, and never more than the caller has checked against its bound.
            self._buffer = self._buffer[self._at :] + self._file.read(max(missing, self._block_size))
            self._at = 0
        return len(self._buffer) >= self._at + count

    def _skip(self, count: int) -> None:
        """Skip `count` bytes. Those that are not in `_buffer` are not read."""
        # `seek` goes beyond the end of a file without an error, so the size is compared here.
        if self._base + self._at + count > self._size:
            raise GGUFError("unexpected EOF")
        self._at += count
        if self._at > len(self._buffer):
            self._base = self._file.seek(self._base + self._at)
            self._buffer, self._at = b"", 0

    def _scalar(self, form: struct.Struct) -> int | float | bool:
        if self._at + form.size > len(self._buffer) and not self._has(form.size):
            raise GGUFError("EOF" if self._at >= len(self._buffer) else "unexpected EOF")
        value: int | float | bool = form.unpack_from(self._buffer, self._at)[0]
        self._at += form.size
        return value

    def _integer(self, form: struct.Struct) -> int:
        return int(self._scalar(form))

    def _string(self) -> str:
        length = self._integer(self._count)
        if length > MAX_STRING:
            raise GGUFError(f"string length {length} exceeds maximum {MAX_STRING}")
        if self._at + length > len(self._buffer) and not self._has(length):
            raise GGUFError("unexpected EOF")
        # The bound is on all strings together: many strings below their own bound could fill the memory.
        self._text = self._bounded("size of all strings", self._text + length, MAX_TEXT)
        data = self._buffer[self._at : self._at + length]
        self._at += length
        if self._ends_in_nul:
            data = data.removesuffix(b"\0")
        return data.decode("utf-8", "surrogateescape")

    def _many_strings(self, count: int) -> list[str]:
        """Read strings. Those that lie completely in `_buffer` take no call each, since a vocabulary has some
        200,000."""
        found: list[str] = []
        unpack, width = self._count.unpack_from, self._count.size
        while len(found) < count:
            buffer, at, begun, known = self._buffer, self._at, self._at, len(found)
            # The fast loop cannot cut zero bytes, so files of version 1 take the slow one.
            last = 0 if self._ends_in_nul else len(buffer) - width
            while len(found) < count and at <= last:
                length = unpack(buffer, at)[0]
                end = at + width + length
                # The slow way reads more of the file, or raises the error.
                if length > MAX_STRING or end > len(buffer):
                    break
                found.append(buffer[at + width : end].decode("utf-8", "surrogateescape"))
                at = end
            text = at - begun - width * (len(found) - known)
            self._text = self._bounded("size of all strings", self._text + text, MAX_TEXT)
            self._at = at
            if len(found) < count:
                found.append(self._string())
        return found

    def _value(self, kind: int, *, arrays: bool) -> object:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._array(wanted=arrays)
        if kind not in SCALARS:
            raise GGUFError(f"invalid type: {kind}")
        value = self._scalar(self._ordered(SCALARS[kind]))
        return Float32(value) if kind == F32 else value

    def _array(self, *, wanted: bool) -> Array:
        kind = self._integer(self._u32)
        length = self._integer(self._count)
        if length > MAX_ARRAY:
            raise GGUFError(f"array size {length} exceeds maximum {MAX_ARRAY}")
        # Skipped arrays take no memory, so only wanted ones count.
        if wanted:
            self._elements = self._bounded("size of all arrays", self._elements + length, MAX_ELEMENTS)
        if kind == STRING:
            # Strings must be walked one by one even to skip them, so their number is bounded in any case.
            self._strings = self._bounded("size of all arrays of strings", self._strings + length, MAX_STRINGS)
            if wanted:
                return Array(kind, length, tuple(self._many_strings(length)))
            self._skip_strings(length)
        elif kind in SCALARS:
            form = self._ordered(SCALARS[kind])
            size = length * form.size
            if not wanted:
                self._skip(size)
            elif not self._has(size):
                raise GGUFError("unexpected EOF")
            else:
                start, self._at = self._at, self._at + size
                values = [each[0] for each in form.iter_unpack(self._buffer[start : self._at])]
                return Array(kind, length, tuple(map(Float32, values)) if kind == F32 else tuple(values))
        else:
            raise GGUFError(f"invalid array type: {kind}")
        # None says that the elements were not read. An empty array has none to read.
        return Array(kind, length, () if length == 0 else None)

    def _skip_strings(self, length: int) -> None:
        width, unpack = self._count.size, self._count.unpack_from
        left = length
        while left:
            if not self._has(width):
                raise GGUFError("unexpected EOF")
            buffer, at, done = self._buffer, self._at, 0
            try:
                # The loop has no test for the end of the buffer: unpack raises there.
                for done in range(left):  # noqa: B007 (how far it came is what counts)
                    at += width + unpack(buffer, at)[0]
                left = 0
            except (struct.error, OverflowError):  # the next length is not in the buffer
                left -= done
            self._skip(at - self._at)

    def _tensor(self) -> Tensor:
        name = self._string()
        dimensions = self._integer(self._u32)
        if dimensions > MAX_DIMENSIONS:
            raise GGUFError(f'tensor "{name}" dimensions {dimensions} exceeds maximum {MAX_DIMENSIONS}')
        shape = tuple([self._integer(self._count) for _ in range(dimensions)])
        kind = self._integer(self._u32)
        return Tensor(name, kind, shape, self._integer(self._ordered(SCALARS[10])))
