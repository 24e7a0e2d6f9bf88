"""Where pictures stand: indexes, positions, and what is evaluated together."""

import numpy as np

from puna_llama_cpp.vision.image_tokens import Picture, Pictures, Placed


def picture(count, *, length=None, causal=True):
    length = count if length is None else length
    flat = length == count
    origin = np.arange(count)[np.newaxis] if flat else np.array([[0] * count, range(count), range(count), [0] * count])
    step = np.ones_like(origin) if flat else np.array([[1] * count] * 3 + [[0] * count])
    vectors = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    return Picture(-2, vectors, origin.astype(np.int32), step.astype(np.int32), length, causal)


def test_without_pictures_everything_is_text():
    none = Pictures()
    assert (none.at(3), none.floor(3), none.position(3), none.text_length(3, 9)) == (None, 3, 3, 9)


def test_text_ends_where_a_picture_begins():
    two = Pictures([Placed(3, picture(4)), Placed(7, picture(2))])  # 3 tokens, two pictures, then text again
    assert [two.text_length(start, 20) for start in (0, 2, 3, 5, 7, 9)] == [3, 1, 0, 0, 0, 20]
    assert two.text_length(0, 2) == 2
    assert [two.at(index) is not None for index in (2, 3, 6, 7, 8, 9)] == [False, True, True, True, True, False]


def test_no_cut_goes_through_a_picture():
    two = Pictures([Placed(3, picture(4)), Placed(7, picture(2))])
    assert [two.floor(index) for index in range(10)] == [0, 1, 2, 3, 3, 3, 3, 7, 7, 9]


def test_positions_run_on_where_a_picture_takes_fewer():
    wide = Pictures([Placed(3, picture(4, length=2)), Placed(10, picture(6, length=3))])
    assert [wide.position(index) for index in (0, 3, 7, 10, 16, 20)] == [0, 3, 5, 8, 11, 15]
    part = wide.slice(12, 3, 512)
    assert part.positions.tolist() == [[8, 8, 8], [10, 11, 12], [10, 11, 12], [0, 0, 0]]
    assert part.vectors.tolist() == [[4, 5], [6, 7], [8, 9]]


def test_vectors_that_see_each_other_are_parted_only_if_they_must_be():
    for causal, lengths in ((True, [64, 64, 12]), (False, [100, 40])):
        one = Pictures([Placed(5, picture(140, causal=causal))])
        index, got = 5, []
        while one.at(index):
            got.append(len(one.slice(index, 64, 100).vectors))
            index += got[-1]
        assert got == lengths
        assert one.slice(5, 64, 100).causal == causal
