import numpy as np

from puna_llama_cpp.binding.batch import Batch, VectorBatch


def rows(native):
    return [
        (native.token[row], native.pos[row], native.seq_id[row][0], native.n_seq_id[row], native.logits[row])
        for row in range(native.n_tokens)
    ]


def test_tokens_of_several_sequences_follow_each_other():
    batch = Batch(8)
    assert batch.add(2, 10, [7, 8], output=True) == 1
    assert batch.add(0, 0, [9], output=False) == 2
    assert rows(batch.native) == [(7, 10, 2, 1, 0), (8, 11, 2, 1, 1), (9, 0, 0, 1, 0)]


def test_all_tokens_of_a_draft_get_outputs():
    batch = Batch(8)
    batch.add(1, 5, [7, 8, 9], output=True, all_outputs=True)
    assert [row[-1] for row in rows(batch.native)] == [1, 1, 1]


def test_a_cleared_batch_keeps_no_output_of_the_step_before():
    batch = Batch(4)
    batch.add(1, 0, [7, 8], output=True, all_outputs=True)
    batch.clear()
    batch.add(1, 0, [7, 8], output=False)
    assert [row[-1] for row in rows(batch.native)] == [0, 0]


def test_vectors_stand_in_the_place_of_tokens():
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    batch = VectorBatch(3, vectors, np.array([[4, 5, 6]], np.int32), output=True)
    native = batch.native
    assert native.n_tokens == 3
    assert not native.token
    assert [native.embd[index] for index in range(6)] == [0, 1, 2, 3, 4, 5]
    assert [(native.pos[row], native.seq_id[row][0], native.logits[row]) for row in range(3)] == [
        (4, 3, 0),
        (5, 3, 0),
        (6, 3, 1),
    ]
