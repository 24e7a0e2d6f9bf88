"""Log-probabilities from the raw logits, before any sampler.

Those of sampled tokens are computed in 32-bit floats, as Ollama computes them, so the logarithm of a tiny probability
is lost. Those of prompt tokens are added up by clients, so they are exact.
"""

import math

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


def prompt_logprob(logits: NDArray[np.float32], token: int, top: int, vocabulary: Vocabulary) -> TokenLogprob:
    """Return the log-probability of a token of a prompt, with the `top` most probable tokens at its place.

    The bytes of special tokens are those of their text.
    """
    highest = logits.max()
    # In 64 bits, since no logarithm of a quotient may underflow.
    normalizer = float(highest) + math.log(float(np.exp(logits - highest).sum()))

    def entry(of: int, alternatives: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(vocabulary.token_bytes(of, special=True), of, float(logits[of]) - normalizer, alternatives)

    # One alternative is the common case, and finding it takes a twentieth of the time of a partition.
    best = [int(logits.argmax())] if top == 1 else _top_tokens(logits, top)
    return entry(token, tuple(map(entry, best)))


def _top_tokens(logits: NDArray[np.float32], count: int) -> list[int]:
    if count <= 0:
        return []
    count = min(count, logits.size)
    chosen = np.argpartition(logits, -count)[-count:]
    order = np.argsort(-logits[chosen], kind="stable")
    return [int(token) for token in chosen[order]]
