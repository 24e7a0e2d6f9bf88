import math

import numpy as np
import pytest

from puna_llama_cpp.sampling.logprobs import LOWEST, prompt_logprob, token_logprob


@pytest.fixture
def vocabulary(parts):
    return parts().weights.vocabulary


def test_probabilities_add_up_and_the_alternatives_come_best_first(vocabulary):
    logits = np.full(vocabulary.size, -np.inf, np.float32)
    logits[[100, 101, 102]] = np.log([0.2, 0.5, 0.3])
    found = token_logprob(logits, 100, 3, vocabulary, frozenset())
    assert (found.token_id, math.exp(found.logprob)) == (100, pytest.approx(0.2))
    assert [each.token_id for each in found.top] == [101, 102, 100]
    assert sum(math.exp(each.logprob) for each in found.top) == pytest.approx(1)
    assert found.raw == vocabulary.output_bytes(100)


def test_a_probability_below_all_floats_is_the_lowest_number(vocabulary):
    logits = np.zeros(vocabulary.size, np.float32)
    logits[5] = -1e4
    assert token_logprob(logits, 5, 0, vocabulary, frozenset()).logprob == LOWEST


def test_more_alternatives_than_tokens_are_all_tokens(vocabulary):
    logits = np.zeros(vocabulary.size, np.float32)
    assert len(token_logprob(logits, 0, 10**6, vocabulary, frozenset()).top) == vocabulary.size


def test_a_special_token_has_bytes_only_if_preserved(vocabulary):
    logits = np.zeros(vocabulary.size, np.float32)
    assert token_logprob(logits, 1, 0, vocabulary, frozenset()).raw == b""
    assert token_logprob(logits, 1, 0, vocabulary, frozenset([1])).raw == b"<|im_start|>"


def test_a_prompt_token_has_its_exact_log_probability_and_the_bytes_of_its_text(vocabulary):
    logits = np.zeros(vocabulary.size, np.float32)
    logits[1] = -1e4
    found = prompt_logprob(logits, 1, 2, vocabulary)
    assert found.logprob == pytest.approx(-1e4 - math.log(vocabulary.size - 1))
    assert found.raw == b"<|im_start|>"
    assert len(found.top) == 2
    assert all(each.logprob == pytest.approx(-math.log(vocabulary.size - 1)) for each in found.top)


def test_the_only_alternative_is_the_most_probable_token(vocabulary):
    logits = np.zeros(vocabulary.size, np.float32)
    logits[7] = 0.5
    assert [each.token_id for each in prompt_logprob(logits, 3, 1, vocabulary).top] == [7]
    assert prompt_logprob(logits, 3, 0, vocabulary).top == ()
