"""Images in a sequence: vectors that stand where tokens stand otherwise.

In a sequence's list of tokens each vector of an image is a number below zero: the same for all of one image, and
never that of another, so that prompts are compared like any other. llama.cpp takes vectors in batches without tokens.
Where a model's positions have width and height (M-RoPE), an image takes fewer positions than vectors, all of which
begin at the same one: a cache cannot be cut inside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ImageChunk:
    """What a model is shown of an image, or of a part of one."""

    token: int
    """What stands for each of its vectors: below zero, and no other image's."""
    vectors: NDArray[np.float32]
    """As many rows as it takes tokens."""
    base_positions: NDArray[np.int32]
    """Positions of the vectors when it begins at 0: a row for each of the model's coordinates."""
    position_step: NDArray[np.int32]
    """What to add to them for each position that it begins later: 1, or 0 for a coordinate that does not move."""
    position_count: int
    """How many positions it takes."""
    causal: bool
    """Whether a vector sees only those before it, and not all that are evaluated with it."""


@dataclass(frozen=True, slots=True)
class ChunkSlice:
    """Vectors of an image that are evaluated together."""

    vectors: NDArray[np.float32]
    positions: NDArray[np.int32]
    """Of each vector: a row for each of the model's coordinates."""
    causal: bool


@dataclass(frozen=True, slots=True)
class PlacedChunk:
    """An image in a list of tokens."""

    start: int
    chunk: ImageChunk

    @property
    def end(self) -> int:
        """The index of what follows it."""
        return self.start + len(self.chunk.vectors)


class PromptImages:
    """Where images stand in a prompt. Indexes count tokens and vectors alike."""

    def __init__(self, placed: Sequence[PlacedChunk] = (), encoding_ns: int = 0) -> None:
        """Take images in order, and how long it took to make them out."""
        self._placed = tuple(placed)
        self.encoding_ns = encoding_ns

    def chunk_at(self, index: int) -> PlacedChunk | None:
        """Return the image that an index is in."""
        for placed in self._placed:
            if placed.start <= index < placed.end:
                return placed
        return None

    def align_down(self, index: int) -> int:
        """Return the index itself, or the beginning of the image that would be cut there."""
        placed = self.chunk_at(index)
        return placed.start if placed else index

    def position(self, index: int) -> int:
        """Return the position of what stands at an index, which is not inside an image."""
        position = index
        for placed in self._placed:
            if placed.end <= index:
                position += placed.chunk.position_count - len(placed.chunk.vectors)
        return position

    def text_length(self, start: int, count: int) -> int:
        """Return how many of `count` tokens from `start` on come before the next image; 0 inside one."""
        for placed in self._placed:
            if placed.end > start:
                return max(min(count, placed.start - start), 0)
        return count

    def slice(self, index: int, room: int, batch_size: int) -> ChunkSlice:
        """Return the next vectors of the image at an index: at most `room`, or `most` if they see each other."""
        placed = self.chunk_at(index)
        assert placed is not None, "asked for vectors where there is text"
        chunk = placed.chunk
        first = index - placed.start
        last = min(first + (room if chunk.causal else batch_size), len(chunk.vectors))
        positions = (chunk.base_positions + self.position(placed.start) * chunk.position_step)[:, first:last]
        return ChunkSlice(chunk.vectors[first:last], positions, chunk.causal)
