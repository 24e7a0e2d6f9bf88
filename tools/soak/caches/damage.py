"""The ways in which a file of a KV cache may be damaged."""

import os
import random
from collections.abc import Callable
from pathlib import Path


def cut(path: Path, draw: random.Random) -> None:
    """Cut a file somewhere."""
    os.truncate(path, draw.randrange(path.stat().st_size))


def empty(path: Path, _draw: random.Random) -> None:
    """Leave nothing of a file."""
    os.truncate(path, 0)


def flip(path: Path, draw: random.Random) -> None:
    """Flip one bit somewhere."""
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def hole(path: Path, draw: random.Random) -> None:
    """Zero a part of a file, as a loss of power may."""
    data = bytearray(path.read_bytes())
    start = draw.randrange(len(data))
    length = min(len(data) - start, draw.randrange(1, 5000))
    # A part that is zero already would not be damaged.
    data[start : start + length] = bytes(length) if any(data[start : start + length]) else b"\1" * length
    path.write_bytes(data)


def grow(path: Path, draw: random.Random) -> None:
    """Add bytes to a file."""
    with path.open("ab") as file:
        file.write(draw.randbytes(100))


def swap(path: Path, draw: random.Random) -> None:
    """Give a file the content of another one."""
    others = [each for each in sorted(path.parents[1].glob("*/*.kv")) if each != path]
    path.write_bytes(draw.choice(others).read_bytes() if others else draw.randbytes(1000))


KINDS: dict[str, Callable[[Path, random.Random], None]] = {
    "cut": cut,
    "empty": empty,
    "flip": flip,
    "hole": hole,
    "grow": grow,
    "swap": swap,
}
