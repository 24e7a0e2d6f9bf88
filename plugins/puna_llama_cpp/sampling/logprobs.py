"""Log-probabilities from the raw logits, before any sampler: in 32-bit floats, as Ollama computes them."""

import numpy as np
from numpy.typing import NDArray

from puna.backend import TokenLogprob
from puna_llama_cpp.binding.vocabulary import Vocabulary

# Ollama's value for a probability that is too small for a 32-bit float.
LOWEST = float(np.finfo(np.float32).min)


def token_logprob(
    logits: NDArray[np.float32], token: int, top: int, vocabulary: Vocabulary, preserved: frozenset[int]
) -> TokenLogprob:
    """Return a token's log-probability, with the `top` most probable tokens at its place."""
    # Subtracting the maximum keeps the exponentials within the range of 32-bit floats.
    weights = np.exp(logits - logits.max())
    total = weights.sum()

    def entry(of: int, alternatives: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        share = weights[of] / total
        value = float(np.log(share)) if share > 0 else LOWEST
        raw = vocabulary.token_bytes(of, special=True) if of in preserved else vocabulary.output_bytes(of)
        return TokenLogprob(raw, of, value, alternatives)

    return entry(token, tuple(entry(other) for other in _top_tokens(logits, top)))


def _top_tokens(logits: NDArray[np.float32], count: int) -> list[int]:
    if count <= 0:
        return []
    count = min(count, logits.size)
    chosen = np.argpartition(logits, -count)[-count:]
    order = np.argsort(-logits[chosen], kind="stable")
    return [int(token) for token in chosen[order]]
