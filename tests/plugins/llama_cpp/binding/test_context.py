import numpy as np
import pytest

from puna.backend import InvalidRequestError
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import AbortedError

TOKENS = [1, 100, 101, 102, 103]
CLOSE = 0.01
"""How far logits may differ when tokens are evaluated in batches of other sizes. Other tokens differ by whole units."""


def evaluate(context, slot, position, tokens):
    """Evaluate tokens and return the logits of the last one."""
    batch = Batch(context.batch_size)
    row = batch.add(slot, position, tokens, output=True)
    context.decode(batch)
    return context.logits(row).copy()


def test_a_truncated_sequence_goes_on_from_there(parts):
    context = parts().context
    expected = evaluate(context, 0, 0, TOKENS)
    evaluate(context, 0, 5, [200, 201])
    assert context.truncate(0, 4) == 4
    assert np.allclose(evaluate(context, 0, 4, TOKENS[4:]), expected, atol=CLOSE)
    context.truncate(0, 4)
    assert not np.allclose(evaluate(context, 0, 4, [200]), expected, atol=CLOSE)


def test_a_copy_holds_what_its_source_holds(parts):
    context = parts().context
    evaluate(context, 0, 0, TOKENS[:4])
    assert context.copy(0, 2)
    assert context.copy(0, 3)  # from the state that the first copy left
    context.release_copies()
    expected = evaluate(context, 0, 4, TOKENS[4:])
    assert np.allclose(evaluate(context, 2, 4, TOKENS[4:]), expected, atol=CLOSE)
    assert np.allclose(evaluate(context, 3, 4, TOKENS[4:]), expected, atol=CLOSE)


def test_a_copy_after_the_source_changed_is_not_the_old_state(parts):
    context = parts().context
    evaluate(context, 0, 0, TOKENS)
    assert context.copy(0, 1)
    context.truncate(0, 0)
    evaluate(context, 0, 0, [1, 200, 201, 202])
    assert context.copy(0, 2)
    assert np.allclose(evaluate(context, 2, 4, [203]), evaluate(context, 0, 4, [203]), atol=CLOSE)


def test_sequences_are_exchanged(parts):
    context = parts().context
    evaluate(context, 0, 0, TOKENS)
    evaluate(context, 1, 0, [1, 200, 201, 202])
    expected = evaluate(context, 1, 4, [203])
    assert context.exchange(0, 1) == (True, True)
    context.truncate(0, 4)
    assert np.allclose(evaluate(context, 0, 4, [203]), expected, atol=CLOSE)
    expected = evaluate(context, 2, 0, [*TOKENS, 203])
    assert np.allclose(evaluate(context, 1, len(TOKENS), [203]), expected, atol=CLOSE)


def test_an_abort_ends_the_evaluation_until_it_is_cleared(parts):
    context = parts().context
    context.set_abort(True)
    with pytest.raises(AbortedError):
        evaluate(context, 0, 0, TOKENS)
    context.truncate(0, 0)
    context.set_abort(False)
    assert np.isfinite(evaluate(context, 0, 0, TOKENS)).all()


@pytest.mark.parametrize(
    ("options", "why"), [({"kv_cache_type": "q9"}, "KV cache type"), ({"flash_attention": "maybe"}, "flash attention")]
)
def test_impossible_options_are_refused_by_name(parts, options, why):
    with pytest.raises(InvalidRequestError, match=why):
        parts(**options)
