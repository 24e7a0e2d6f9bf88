"""Division of large answers into parts that every client receives, since 4 MiB is the default limit of most libraries.

Each part is a message of the answer's own type. A client puts an answer together by appending texts and lists.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

PART_BYTES: Final = 1 << 17
"""Size from which a part is full. Messages of twice this size are still compressed; see puna.rpc.writing."""
_CHARACTERS: Final = PART_BYTES // 4
"""Characters of a text in one part. Each has at most four bytes."""


def parts(answer: M) -> Iterator[M]:
    """Yield the parts of an answer, with its fields in the order of their numbers.

    The fields are texts, messages, or lists of messages. A text is divided between characters. A message is never
    divided, so a part may exceed PART_BYTES by one.
    """
    part, size = type(answer)(), 0
    for field, value in answer.ListFields():
        if isinstance(value, Message):
            getattr(part, field.name).CopyFrom(value)
            size += value.ByteSize()
            continue
        for piece in _divided(value) if isinstance(value, str) else value:
            if size >= PART_BYTES:
                yield part
                part, size = type(answer)(), 0
            if isinstance(piece, str):
                # A part takes up several pieces of a text, until it is full.
                setattr(part, field.name, getattr(part, field.name) + piece)
                size += len(piece.encode())
            else:
                getattr(part, field.name).append(piece)
                size += piece.ByteSize()
    yield part


def _divided(text: str) -> Iterator[str]:
    return (text[start : start + _CHARACTERS] for start in range(0, len(text), _CHARACTERS))


def groups(weights: Sequence[int], most: int) -> Iterator[slice]:
    """Yield slices of consecutive items whose weights together exceed `most` by one item at most."""
    start, total = 0, 0
    for place, weight in zip(count(1), weights, strict=False):
        total += weight
        if total >= most:
            yield slice(start, place)
            start, total = place, 0
    if start < len(weights):
        yield slice(start, len(weights))
