"""Pictures in a sequence: vectors that stand where tokens stand otherwise.

In a sequence's list of tokens each vector of a picture is a number below zero: the same for all of one picture, and
never that of another, so that prompts are compared like any other. llama.cpp takes vectors in batches without tokens.
Where a model's positions have width and height (M-RoPE), a picture takes fewer positions than vectors, all of which
begin at the same one: a cache cannot be cut inside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """What a model is shown of a picture, or of a part of one."""

    token: int
    """What stands for each of its vectors: below zero, and no other picture's."""
    vectors: NDArray[np.float32]
    """As many rows as it takes tokens."""
    origin: NDArray[np.int32]
    """Positions of the vectors when it begins at 0: a row for each of the model's coordinates."""
    step: NDArray[np.int32]
    """What to add to them for each position that it begins later: 1, or 0 for a coordinate that does not move."""
    length: int
    """How many positions it takes."""
    causal: bool
    """Whether a vector sees only those before it, and not all that are evaluated with it."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Vectors of a picture that are evaluated together."""

    vectors: NDArray[np.float32]
    positions: NDArray[np.int32]
    """Of each vector: a row for each of the model's coordinates."""
    causal: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """A picture in a list of tokens."""

    start: int
    picture: Picture

    @property
    def end(self) -> int:
        """The index of what follows it."""
        return self.start + len(self.picture.vectors)


class Pictures:
    """Where pictures stand in a prompt. Indexes count tokens and vectors alike."""

    def __init__(self, placed: Sequence[Placed] = (), encoding_ns: int = 0) -> None:
        """Take pictures in order, and how long it took to make them out."""
        self._placed = tuple(placed)
        self.encoding_ns = encoding_ns

    def at(self, index: int) -> Placed | None:
        """Return the picture that an index is in."""
        for placed in self._placed:
            if placed.start <= index < placed.end:
                return placed
        return None

    def floor(self, index: int) -> int:
        """Return the index itself, or the beginning of the picture that would be cut there."""
        placed = self.at(index)
        return placed.start if placed else index

    def position(self, index: int) -> int:
        """Return the position of what stands at an index, which is not inside a picture."""
        position = index
        for placed in self._placed:
            if placed.end <= index:
                position += placed.picture.length - len(placed.picture.vectors)
        return position

    def text_length(self, start: int, count: int) -> int:
        """Return how many of `count` tokens from `start` on come before the next picture; 0 inside one."""
        for placed in self._placed:
            if placed.end > start:
                return max(min(count, placed.start - start), 0)
        return count

    def slice(self, index: int, room: int, most: int) -> Slice:
        """Return the next vectors of the picture at an index: at most `room`, or `most` if they see each other."""
        placed = self.at(index)
        assert placed is not None, "asked for vectors where there is text"
        picture = placed.picture
        first = index - placed.start
        last = min(first + (room if picture.causal else most), len(picture.vectors))
        positions = (picture.origin + self.position(placed.start) * picture.step)[:, first:last]
        return Slice(picture.vectors[first:last], positions, picture.causal)
