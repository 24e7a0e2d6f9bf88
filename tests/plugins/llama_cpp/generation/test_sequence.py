import pytest

from puna.backend import SequenceRequest
from puna_ggml_kernels import loader
from puna_llama_cpp.generation.sequence import Sequence


@pytest.fixture
def in_tiled_prefill():
    """Ask a sequence of so many tokens, of which some were cached when it came, when it began, and are evaluated."""
    loader.install()

    def in_tiled_prefill(length, cached, present, evaluated, *, exact):
        loader.set_exact(exact=exact)
        tokens = list(range(length))
        sequence = Sequence(SequenceRequest(prompt=tuple(tokens)), tokens, None, frozenset())
        sequence.initially_cached = present
        sequence.start(0, cached)
        sequence.evaluated = evaluated
        return sequence.in_tiled_prefill(512)

    yield in_tiled_prefill
    loader.set_exact(exact=False)


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
async def test_a_part_belongs_to_the_batch_in_which_it_would_have_been_alone(
    in_tiled_prefill, length, cached, present, evaluated, many
):
    assert in_tiled_prefill(length, cached, present, evaluated, exact=True) is many


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("length", "cached", "many"),
    [
        (330, 300, True),
        (268, 256, True),
        (267, 255, False),  # attention takes little time
        (311, 300, False),  # too few for a tile
    ],
)
async def test_a_short_message_of_a_long_chat_is_tiled_unless_its_bits_must_be_ggmls(
    in_tiled_prefill, length, cached, many
):
    assert in_tiled_prefill(length, cached, cached, cached, exact=False) is many
    assert not in_tiled_prefill(length, cached, cached, cached, exact=True)
