import numpy as np
import pytest

from puna.backend import InvalidRequestError, Sampling
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import AbortedError
from puna_llama_cpp.sampling.chain import SamplerChain, validate

PROMPT = [1, 100, 101, 102]


@pytest.fixture
def evaluated(parts):
    """A context whose last batch has logits in a row, and its vocabulary."""
    opened = parts()
    batch = Batch(opened.context.batch_size)
    row = batch.add(0, 0, PROMPT, output=True)
    opened.context.decode(batch)
    return opened.context, opened.weights.vocabulary, row


def sampled(evaluated, count=1, prompt=PROMPT, **sampling):
    context, vocabulary, row = evaluated
    chain = SamplerChain(Sampling(**sampling), vocabulary, context.length, prompt)
    tokens = [chain.sample(context, row) for _ in range(count)]
    chain.close()
    return tokens


def test_temperature_zero_takes_the_largest_logit(evaluated):
    context, _, row = evaluated
    assert sampled(evaluated, temperature=0) == [int(np.argmax(context.logits(row)))]


def test_a_seed_gives_the_same_tokens_again(evaluated):
    first = sampled(evaluated, 20, temperature=1.5, seed=3)
    assert sampled(evaluated, 20, temperature=1.5, seed=3) == first
    assert sampled(evaluated, 20, temperature=1.5, seed=4) != first
    assert len(set(first)) > 1


def test_a_bias_decides(evaluated):
    assert sampled(evaluated, temperature=0, logit_bias={7: 1e6}) == [7]


def test_the_prompt_counts_for_penalties(evaluated):
    [best] = sampled(evaluated, temperature=0)
    assert sampled(evaluated, temperature=0, presence_penalty=1e6, prompt=[best]) != [best]
    assert sampled(evaluated, temperature=0, presence_penalty=1e6, prompt=[best], repeat_last_n=0) == [best]


def test_top_k_leaves_only_that_many(evaluated):
    context, _, row = evaluated
    largest = set(np.argsort(context.logits(row))[-3:].tolist())
    assert set(sampled(evaluated, 60, temperature=5.0, top_k=3, top_p=1.0)) <= largest


@pytest.mark.kernels
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1.5, "seed": 3},
        {"temperature": 1.5, "seed": 3, "top_k": 0, "repeat_penalty": 1.3},
    ],
)
def test_tokens_drawn_while_a_batch_is_evaluated_are_those_drawn_afterwards(parts, sampling):
    opened, expected, drawn = parts(parallel=2), [], []
    context, vocabulary = opened.context, opened.weights.vocabulary
    batch = Batch(context.batch_size)
    for at_once in (False, True):
        chains = [SamplerChain(Sampling(**sampling), vocabulary, context.length, PROMPT) for _ in range(2)]
        context.clear()
        for position in range(12):
            batch.clear()
            rows = [batch.add(slot, position, [40 + slot + 3 * position], output=True) for slot in range(2)]
            first = chains[0].draw(rows[0], chains[1].draw(rows[1], 0)) if at_once else 0
            context.decode(batch, draws=first)
            if at_once:
                # Where the tokens come from is not to be seen in them.
                assert all(chain.drawn for chain in chains)
            tokens = drawn if at_once else expected
            tokens += [chain.sample(context, row) for chain, row in zip(chains, rows, strict=True)]
        for chain in chains:
            chain.close()
    assert drawn == expected
    assert len(set(drawn)) > 2


@pytest.mark.kernels
def test_nothing_is_drawn_from_a_batch_that_was_aborted(evaluated):
    context, vocabulary, _ = evaluated
    chain, batch = SamplerChain(Sampling(), vocabulary, context.length, PROMPT), Batch(context.batch_size)
    batch.add(0, len(PROMPT), [9], output=True)
    context.set_abort(True)
    with pytest.raises(AbortedError):
        context.decode(batch, draws=chain.draw(0, 0))
    assert not chain.drawn
    context.set_abort(False)
    context.truncate(0, len(PROMPT))
    context.decode(batch, draws=chain.draw(0, 0))
    assert chain.drawn
    chain.close()


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"min_p": float("inf")}, "min_p"),
        ({"repeat_penalty": 0.0}, "penalty_repeat"),
        ({"repeat_last_n": -2}, "repeat_last_n"),
    ],
)
def test_values_that_llama_cpp_does_not_survive_are_refused(sampling, why):
    with pytest.raises(InvalidRequestError, match=why):
        validate(Sampling(**sampling))
