import pytest

from puna.backend import SequenceRequest
from puna_llama_cpp.generation.sequence import Sequence


@pytest.mark.parametrize(
    ("length", "cached", "present", "evaluated", "many"),
    [
        (630, 0, 0, 0, True),
        (630, 0, 0, 620, True),  # alone it would have gone with those from 512 on
        (530, 0, 0, 520, False),  # alone 18 would have been left
        (630, 600, 600, 600, False),
        (630, 620, 0, 620, True),  # the cache had them only after another's prompt that it waited for
        (630, 620, 600, 620, False),
    ],
)
async def test_a_part_belongs_to_the_batch_in_which_it_would_have_been_alone(length, cached, present, evaluated, many):
    tokens = list(range(length))
    sequence = Sequence(SequenceRequest(prompt=tuple(tokens)), tokens, None, frozenset())
    sequence.initially_cached = present
    sequence.start(0, cached)
    sequence.evaluated = evaluated
    assert sequence.in_tiled_prefill(512) is many
