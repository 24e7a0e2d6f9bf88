import numpy as np
import pytest

from puna_llama_cpp.kv_store import buffers as buffers_module
from puna_llama_cpp.kv_store.buffers import MAX_BYTES, StateBuffers, touched


def test_buffers_serve_somewhat_larger_copies_too():
    buffers = StateBuffers()
    assert buffers.expect(1000)
    assert 1000 <= buffers.size <= 1130
    assert not buffers.expect(buffers.size)
    assert buffers.expect(buffers.size + 1)


@pytest.mark.parametrize(("size", "count"), [(1000, 2), (MAX_BYTES // 2, 2), (MAX_BYTES // 2 + 1, 1), (MAX_BYTES, 1)])
def test_all_buffers_together_keep_the_limit(size, count):
    buffers = StateBuffers()
    assert buffers.expect(size)
    kept = 0
    while buffers.lacking:
        buffers.give(np.empty(buffers.size, np.uint8))
        kept += 1
    assert kept == count
    buffers.give(np.empty(buffers.size, np.uint8))
    assert [buffers.take() is None for _ in range(kept + 1)] == [False] * kept + [True]


def test_nothing_is_prepared_for_a_copy_beyond_the_limit():
    buffers = StateBuffers()
    assert not buffers.expect(MAX_BYTES + 1)
    assert not buffers.lacking


def test_a_buffer_that_is_too_small_is_not_kept():
    buffers = StateBuffers()
    buffers.expect(1000)
    buffers.give(np.empty(999, np.uint8))
    assert buffers.take() is None


def test_without_a_copy_in_sight_nothing_is_kept():
    buffers = StateBuffers()
    buffers.expect(1000)
    buffers.give(np.empty(buffers.size, np.uint8))
    buffers.clear()
    buffers.give(np.empty(2000, np.uint8))
    assert buffers.take() is None


def test_touching_can_be_given_up():
    answers = iter([True, False])
    assert touched(3 * buffers_module._TOUCHED_BYTES, lambda: next(answers)) is None
    assert len(touched(100, lambda: True)) == 100
