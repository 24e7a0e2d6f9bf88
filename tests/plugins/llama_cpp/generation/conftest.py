import pytest

from puna.backend import SequenceRequest
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.generation.sequence import Sequence


@pytest.fixture
def make_sequence():
    """Make a sequence of a prompt's tokens."""

    def make_sequence(tokens, matcher=None, **request):
        return Sequence(SequenceRequest(prompt=tuple(tokens), **request), list(tokens), matcher, frozenset())

    return make_sequence


@pytest.fixture
def prefill():
    """Evaluate the tokens of a sequence up to an index."""

    def prefill(context, sequence, end=None):
        end = len(sequence.tokens) if end is None else end
        batch = Batch(context.batch_size)
        batch.add(sequence.slot, sequence.evaluated, sequence.tokens[sequence.evaluated : end], output=True)
        context.decode(batch)
        sequence.evaluated = end

    return prefill
