"""Images among tokens: indexes, positions, and what is evaluated together."""

import numpy as np

from puna_llama_cpp.vision.image_tokens import ImageChunk, PlacedChunk, PromptImages


def chunk(count, *, position_count=None, causal=True):
    position_count = count if position_count is None else position_count
    flat = position_count == count
    base_positions = (
        np.arange(count)[np.newaxis] if flat else np.array([[0] * count, range(count), range(count), [0] * count])
    )
    position_step = np.ones_like(base_positions) if flat else np.array([[1] * count] * 3 + [[0] * count])
    vectors = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    return ImageChunk(
        -2, vectors, base_positions.astype(np.int32), position_step.astype(np.int32), position_count, causal
    )


def test_without_images_everything_is_text():
    none = PromptImages()
    assert (none.chunk_at(3), none.align_down(3), none.position(3), none.text_length(3, 9)) == (None, 3, 3, 9)


def test_text_ends_where_an_image_begins():
    two = PromptImages([PlacedChunk(3, chunk(4)), PlacedChunk(7, chunk(2))])  # 3 tokens, two images, then text again
    assert [two.text_length(start, 20) for start in (0, 2, 3, 5, 7, 9)] == [3, 1, 0, 0, 0, 20]
    assert two.text_length(0, 2) == 2
    assert [two.chunk_at(index) is not None for index in (2, 3, 6, 7, 8, 9)] == [False, True, True, True, True, False]


def test_no_cut_goes_through_an_image():
    two = PromptImages([PlacedChunk(3, chunk(4)), PlacedChunk(7, chunk(2))])
    assert [two.align_down(index) for index in range(10)] == [0, 1, 2, 3, 3, 3, 3, 7, 7, 9]


def test_positions_run_on_where_an_image_takes_fewer():
    wide = PromptImages([PlacedChunk(3, chunk(4, position_count=2)), PlacedChunk(10, chunk(6, position_count=3))])
    assert [wide.position(index) for index in (0, 3, 7, 10, 16, 20)] == [0, 3, 5, 8, 11, 15]
    part = wide.slice(12, 3, 512)
    assert part.positions.tolist() == [[8, 8, 8], [10, 11, 12], [10, 11, 12], [0, 0, 0]]
    assert part.vectors.tolist() == [[4, 5], [6, 7], [8, 9]]


def test_vectors_that_see_each_other_are_parted_only_if_they_must_be():
    for causal, lengths in ((True, [64, 64, 12]), (False, [100, 40])):
        one = PromptImages([PlacedChunk(5, chunk(140, causal=causal))])
        index, got = 5, []
        while one.chunk_at(index):
            got.append(len(one.slice(index, 64, 100).vectors))
            index += got[-1]
        assert got == lengths
        assert one.slice(5, 64, 100).causal == causal
