import pytest

from puna.rpc.parts import PART_BYTES, groups, parts
from puna_client.v1 import models_pb2

FOUR = "\U0001f999"
"""A character of four bytes."""


def test_a_small_answer_is_one_part():
    answer = models_pb2.GetModelResponse(license="a", tensors=[models_pb2.TensorInfo(name="t")])
    answer.model.name = "m"
    assert list(parts(answer)) == [answer]
    assert list(parts(models_pb2.GetModelResponse())) == [models_pb2.GetModelResponse()]


def test_a_large_answer_is_put_together_again():
    answer = models_pb2.GetModelResponse(
        license=FOUR * 600_000,
        template="short",
        model_info_json="x" * 5_000_000,
        tensors=[
            models_pb2.TensorInfo(name=f"blk.{i}.weight" * 9, type="Q4_K", shape=[4096, i]) for i in range(20_000)
        ],
    )
    answer.model.name = "m"
    found = list(parts(answer))
    assert found[0].model.name == "m"
    assert not any(each.HasField("model") for each in found[1:])
    assert max(each.ByteSize() for each in found) < 3 * PART_BYTES
    joined = models_pb2.GetModelResponse(model=found[0].model)
    for part in found:
        for field, value in part.ListFields():
            if isinstance(value, str):
                setattr(joined, field.name, getattr(joined, field.name) + value)
            elif field.name == "tensors":
                joined.tensors.extend(value)
    assert joined == answer


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([], []), ([1], [[1]]), ([1, 2, 3], [[1, 2], [3]]), ([9, 9], [[9], [9]]), ([3], [[3]]), ([1, 1, 1], [[1, 1, 1]])],
)
def test_groups(weights, expected):
    assert [weights[each] for each in groups(weights, 3)] == expected
