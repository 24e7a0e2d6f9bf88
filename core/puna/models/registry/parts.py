"""The parts of a blob, and the notes that say how many bytes of each part are on the disk."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from puna.models.registry.limits import Limits


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a blob, and how many of its bytes have arrived."""

    number: int
    offset: int
    size: int
    completed: int = 0

    @property
    def missing(self) -> int:
        """Bytes that are missing."""
        return self.size - self.completed


def plan(total: int, limits: Limits) -> tuple[Part, ...]:
    """Divide a blob into parts. An empty blob has none."""
    # Ollama's rule, so that either server plans the same parts and can read the other's notes.
    size = min(max(total // limits.parts, limits.smallest_part), limits.largest_part)
    return tuple(Part(number, offset, min(size, total - offset)) for number, offset in enumerate(range(0, total, size)))


def dumps(part: Part) -> bytes:
    """Write a note as Ollama does."""
    return (f'{{"N":{part.number},"Offset":{part.offset},"Size":{part.size},"Completed":{part.completed}}}\n').encode()


def loads(data: bytes) -> Part:
    """Read a note. Raises ValueError."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("a part's state is a JSON object")
    numbers = [value.get(key, 0) for key in ("N", "Offset", "Size", "Completed")]
    if not all(isinstance(each, int) and each >= 0 for each in numbers):
        raise ValueError("a part's state has whole numbers")
    part = Part(*numbers)
    if part.completed > part.size:
        raise ValueError("more of a part is there than it has")
    return part


def whole(found: Iterable[Part]) -> tuple[Part, ...]:
    """Return the parts in order if they cover a blob without gaps, otherwise nothing."""
    parts = sorted(found, key=lambda part: part.number)
    end = 0
    for number, part in enumerate(parts):
        # A gap would be left as zeros, and the digest would be wrong only after the whole download.
        if (part.number, part.offset) != (number, end) or not part.size:
            return ()
        end += part.size
    return tuple(parts)


def total(parts: Sequence[Part]) -> int:
    """Bytes of the blob."""
    return sum(part.size for part in parts)


def emptied(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Return the parts with no bytes completed."""
    return tuple(replace(part, completed=0) for part in parts)
