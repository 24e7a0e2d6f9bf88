"""Images in a sequence: vectors that stand where tokens stand otherwise.

In a sequence's list of tokens, each vector of an image chunk is represented by the chunk's token id. Such ids are below
zero, equal for all vectors of one chunk, and never reused for another chunk. So prompts with images are compared like
any others, and the prefix cache needs no knowledge of images.

An index counts tokens and vectors alike; a position is what llama.cpp is told. They are equal for text. Where a model's
positions have width and height (M-RoPE), an image takes fewer positions than vectors, and all of its vectors begin at
the same position. A cache therefore cannot be cut inside an image: `align_down` moves a cut to the image's beginning.

llama.cpp takes tokens or vectors in one batch, not both. Vectors of a causal image may be divided among batches.
Vectors that attend to each other (Gemma 3) must be evaluated together, as many as a batch takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ImageChunk:
    """The encoded form of an image, or of one part of it."""

    token: int
    """The id that represents each of its vectors in a list of tokens: below zero, and no other chunk's."""
    vectors: NDArray[np.float32]
    """One row for each token that the image takes."""
    base_positions: NDArray[np.int32]
    """Positions of the vectors if the image begins at position 0: one row for each of the model's coordinates."""
    position_step: NDArray[np.int32]
    """What each coordinate gains for every position by which the image begins later: 1, or 0 for a fixed coordinate."""
    position_count: int
    """The number of positions that it takes."""
    causal: bool
    """Whether a vector attends only to those before it, and not to all that are evaluated with it."""


@dataclass(frozen=True, slots=True)
class ChunkSlice:
    """Vectors of a chunk that are evaluated together."""

    vectors: NDArray[np.float32]
    positions: NDArray[np.int32]
    """Positions of the vectors: one row for each of the model's coordinates."""
    causal: bool


@dataclass(frozen=True, slots=True)
class PlacedChunk:
    """A chunk at an index of a list of tokens."""

    start: int
    chunk: ImageChunk

    @property
    def end(self) -> int:
        """The index behind it."""
        return self.start + len(self.chunk.vectors)


class PromptImages:
    """The chunks of a prompt. Indexes count tokens and vectors alike."""

    def __init__(self, placed: Sequence[PlacedChunk] = (), encoding_ns: int = 0) -> None:
        """Take chunks in order. `encoding_ns`: the time that it took to encode them."""
        self._placed = tuple(placed)
        self.encoding_ns = encoding_ns

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._placed)

    def chunk_at(self, index: int) -> PlacedChunk | None:
        """Return the chunk that covers an index, or None."""
        for placed in self._placed:
            if placed.start <= index < placed.end:
                return placed
        return None

    def align_down(self, index: int) -> int:
        """Return the index, or the beginning of the chunk that a cut there would divide."""
        placed = self.chunk_at(index)
        # llama.cpp removes positions, and all vectors of an image may begin at the same one.
        return placed.start if placed else index

    def position(self, index: int) -> int:
        """Return the position of an index that is not inside a chunk."""
        position = index
        for placed in self._placed:
            if placed.end <= index:
                # An image takes `position_count` positions for all of its vectors, however many these are.
                position += placed.chunk.position_count - len(placed.chunk.vectors)
        return position

    def text_length(self, start: int, count: int) -> int:
        """Return how many of `count` tokens from `start` on come before the next chunk; 0 inside one."""
        for placed in self._placed:
            if placed.end > start:
                # Chunks are in order, so the first one that ends behind `start` is the next.
                return max(min(count, placed.start - start), 0)
        return count

    def slice(self, index: int, room: int, batch_size: int) -> ChunkSlice:
        """Return the next vectors of the chunk at an index.

        They are at most `room`, or at most `batch_size` if the vectors attend to each other.
        """
        placed = self.chunk_at(index)
        assert placed is not None, "asked for vectors where there is text"
        chunk = placed.chunk
        first = index - placed.start
        # Vectors that attend to each other cannot be divided by the prefill budget, only by the size of a batch.
        last = min(first + (room if chunk.causal else batch_size), len(chunk.vectors))
        # Positions are relative to the image's beginning, so they are computed for the whole chunk and then cut.
        positions = (chunk.base_positions + self.position(placed.start) * chunk.position_step)[:, first:last]
        return ChunkSlice(chunk.vectors[first:last], positions, chunk.causal)
