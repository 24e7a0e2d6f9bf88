"""Reading safetensors files: eight bytes of length, a JSON header, and the data, which is mapped and read on demand."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from puna.go import json_text
from puna.models.convert.failure import ConversionError

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_LONGEST_HEADER: Final = 100_000_000  # the format's own limit
_KINDS: "Final[dict[str, np.dtype[Any]]]" = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no such floats
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """A tensor in a file."""

    name: str
    kind: str
    """The type's name in safetensors."""
    values: Array
    """The stored values. BF16 values are integers: the upper halves of float32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths, outermost first."""
        return tuple(self.values.shape)

    def float32(self) -> Array:
        """Return the values as float32."""
        if self.kind == "BF16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        return self.values.astype(np.float32)


def read(path: Path) -> dict[str, Weights]:
    """Return the tensors of a file by name. Raises ConversionError if header and file do not agree."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        # A file of less than eight bytes gets a length that the next test refuses.
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        # The length is checked before it is read: a header may claim a terabyte.
        if 8 + length > size or length > _LONGEST_HEADER:
            raise ConversionError(f"{path.name}: unexpected EOF in the header")
        text = file.read(length)
    try:
        header = json_text.loads(text)
    except ValueError as error:
        raise ConversionError(f"{path.name}: the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ConversionError(f"{path.name}: the header is not a JSON object")
    # An empty map is an error to mmap.
    data = np.memmap(path, np.uint8, "r", offset=8 + length) if size > 8 + length else np.empty(0, np.uint8)
    return {name: _weights(path.name, name, entry, data) for name, entry in header.items() if name != "__metadata__"}


def _weights(file: str, name: str, entry: object, data: "np.ndarray[Any, np.dtype[np.uint8]]") -> Weights:
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise ConversionError(f'{file}: the header\'s entry of "{name}" is not one of a tensor')
    if kind not in _KINDS:
        raise ConversionError(f"unknown data type: {kind}")
    if not all(isinstance(each, int) and each >= 0 for each in shape):
        raise ConversionError(f'{file}: "{name}" has the shape {shape}')
    if not 0 <= start <= end <= data.size:
        raise ConversionError(f'{file}: unexpected EOF in "{name}"')
    # Python's integers do not overflow. numpy's would wrap, and a shape of 2^64 elements would pass for an empty one.
    elements = 1
    for each in shape:
        elements *= each
    if end - start != elements * _KINDS[kind].itemsize:
        raise ConversionError(f'{file}: "{name}" has {end - start} bytes, which is not {kind} of shape {shape}')
    return Weights(name, kind, data[start:end].view(_KINDS[kind]).reshape(shape))
