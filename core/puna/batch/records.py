"""Files of records, to which only whole records count.

A record is a header with its length and a checksum, and a payload. A process that dies while it appends leaves a part
of a record at the end of the file. Readers stop there, and `recover` cuts it off before the next record is appended.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from puna.atomic_files import sync_folder

_HEADER: Final = struct.Struct("<IIIIB")
"""Length of the payload, checksum, index, number, flag."""
_CHECKED: Final = struct.Struct("<IIB")


@dataclass(frozen=True, slots=True)
class Record:
    """One record. Batches keep one per request, and one per result."""

    index: int
    """Position of a result in the order of results, from 1; 0 for a request."""
    number: int
    """Number of the request in its batch, from 1."""
    flag: bool
    """Of a request: whether it runs as one call that shares the model with no other. Of a result: whether it is an
    error."""
    payload: bytes

    def encode(self) -> bytes:
        """Return the bytes of the record."""
        checksum = _checksum(self.index, self.number, self.flag, self.payload)
        return _HEADER.pack(len(self.payload), checksum, self.index, self.number, self.flag) + self.payload

    @property
    def size(self) -> int:
        """Number of bytes of the encoded record."""
        return _HEADER.size + len(self.payload)


def _checksum(index: int, number: int, flag: bool, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_CHECKED.pack(index, number, flag)))


def read(file: BinaryIO) -> Record | None:
    """Read the next record; None at the end of the whole records. The file then stands at an undefined place."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    length, checksum, index, number, flag = _HEADER.unpack(header)
    payload = file.read(length)
    if len(payload) < length or checksum != _checksum(index, number, bool(flag), payload):
        return None
    return Record(index, number, bool(flag), payload)


def whole(path: Path) -> Iterator[Record]:
    """Yield the whole records of a file. A file that does not exist has none."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while (record := read(file)) is not None:
            yield record


def recover(path: Path) -> Iterator[Record]:
    """Yield the whole records of a file, and cut off what a writer that died has left behind them."""
    size = 0
    for record in whole(path):
        size += record.size
        yield record
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)


def rewrite(path: Path, keep: Callable[[Record], bool]) -> None:
    """Replace a file of records atomically by one with the records to keep. Does nothing if there is no file."""
    if not path.exists():
        return
    # A name that begins with a dot is removed when the folder is opened, should the process die here.
    other = path.with_name(f".{path.name}")
    other.unlink(missing_ok=True)
    with os.fdopen(os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for record in whole(path):
            if keep(record):
                file.write(record.encode())
        file.flush()
        os.fsync(file.fileno())
    other.replace(path)
    sync_folder(path.parent)


def append(path: Path, data: bytes) -> None:
    """Append encoded records durably. The file is created if needed, for its owner alone.

    OSError: the disk is full or broken. Nothing has been appended then.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fdatasync(descriptor)
        except OSError:
            # A part of a record would hide all records behind it.
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
