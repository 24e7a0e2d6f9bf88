"""Samples tokens with llama.cpp's samplers, chained in Ollama's order.

The order is: bias, penalties, top-k, typical-p, top-p, min-p, temperature, draw. Temperature 0 takes the token with the
largest logit; the filters cannot change that, so they are left out. The penalties look at the prompt too.
"""

import ctypes
import math

import llama_cpp.llama_cpp as lib

from puna.backend import InvalidRequestError, Sampling
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.native_step import NO_TOKEN, Draw
from puna_llama_cpp.binding.vocabulary import Vocabulary
from puna_llama_cpp.sampling.top_k_prefilter import Candidates, worthwhile

_INT32 = 2**31 - 1
_MAX_LAST_N = 1 << 20
"""llama.cpp allocates room for that many tokens at once, so an unlimited number would take all memory."""
_FINITE_OPTIONS = (
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
)
_RANDOM_SEED = lib.LLAMA_DEFAULT_SEED


def validate(sampling: Sampling) -> None:
    """Raise InvalidRequestError for values that llama.cpp would not survive.

    Where llama.cpp's server has a text, it is used.
    """
    for name in _FINITE_OPTIONS:
        if not math.isfinite(getattr(sampling, name)):
            raise InvalidRequestError(f"{name} must be finite")
    if sampling.repeat_penalty <= 0:
        raise InvalidRequestError("Failed to initialize samplers: penalty_repeat must be finite and greater than 0")
    if sampling.repeat_last_n < -1:
        raise InvalidRequestError(
            f"Field 'repeat_last_n': Value must be between 0 <= value <= {_INT32}, but got {sampling.repeat_last_n}"
        )


def _prefilter_size(sampling: Sampling, penalized: int) -> int:
    """Return how many of the tokens with the largest logits suffice to sample from; 0 if all are needed.

    `penalized`: how many tokens the penalties look at. Each may push one token out of the largest, but draw none in.
    """
    # Penalties that raise logits could lift any token into the largest ones.
    lowering = sampling.repeat_penalty >= 1 and min(sampling.frequency_penalty, sampling.presence_penalty) >= 0
    if sampling.logit_bias or (penalized and not lowering):
        return 0
    # Each penalized token may leave the top, so as many candidates more are needed.
    candidates_needed = 1 if sampling.temperature <= 0 else sampling.top_k
    return candidates_needed + penalized if candidates_needed > 0 else 0


class SamplerChain:
    """One sequence's samplers, with their memory of its tokens. Use and free it on the decode thread."""

    def __init__(self, sampling: Sampling, vocabulary: Vocabulary, context_length: int, prompt: list[int]) -> None:
        """Chain the samplers. The penalties are given the prompt."""
        self._chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        self._add_bias(sampling, vocabulary)
        last_n = context_length if sampling.repeat_last_n < 0 else min(sampling.repeat_last_n, _MAX_LAST_N)
        # A penalties sampler costs time even if its values change nothing.
        neutral = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty) == (1.0, 0.0, 0.0)
        penalizes = last_n > 0 and not neutral
        size = _prefilter_size(sampling, last_n if penalizes else 0)
        self._candidates = Candidates(vocabulary.size, size) if size and worthwhile(vocabulary.size, size) else None
        self._draw = Draw(chain=ctypes.cast(self._chain, ctypes.c_void_p), token=NO_TOKEN)
        if self._candidates is not None:
            self._candidates.describe(self._draw)
        if penalizes:
            self._add(
                lib.llama_sampler_init_penalties(
                    vocabulary.size,
                    last_n,
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                )
            )
        if sampling.temperature <= 0:
            self._add(lib.llama_sampler_init_greedy())
        else:
            self._add_random(sampling)
        if penalizes:
            # Only the last tokens are kept, so feeding the whole prompt would only cost time.
            for token in prompt[-last_n:]:
                lib.llama_sampler_accept(self._chain, token)

    def _add(self, sampler: "lib.llama_sampler_p") -> None:
        lib.llama_sampler_chain_add(self._chain, sampler)

    def _add_bias(self, sampling: Sampling, vocabulary: Vocabulary) -> None:
        if not sampling.logit_bias:
            return
        # llama.cpp writes to the logits at these ids without a check.
        vocabulary.validate(list(sampling.logit_bias))
        items = [lib.llama_logit_bias(token, bias) for token, bias in sampling.logit_bias.items()]
        biases = (lib.llama_logit_bias * len(items))(*items)
        self._add(lib.llama_sampler_init_logit_bias(vocabulary.size, len(biases), biases))

    def _add_random(self, sampling: Sampling) -> None:
        # llama.cpp's seeds have 32 bits, so larger and negative ones wrap around.
        seed = _RANDOM_SEED if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        # Clamped, since ctypes would cut a larger number to its low 32 bits without an error.
        self._add(lib.llama_sampler_init_top_k(max(-1, min(sampling.top_k, _INT32))))
        self._add(lib.llama_sampler_init_typical(sampling.typical_p, 0))
        self._add(lib.llama_sampler_init_top_p(sampling.top_p, 0))
        self._add(lib.llama_sampler_init_min_p(sampling.min_p, 0))
        self._add(lib.llama_sampler_init_temp(sampling.temperature))
        self._add(lib.llama_sampler_init_dist(seed))

    def draw(self, row: int, following: int) -> int:
        """Have the next evaluation sample from this row at once, if it can. Return the address for `Context.decode`.

        `following`: the address that the draw of another chain returned, or 0.
        """
        self._draw.row, self._draw.next, self._draw.token = row, following, NO_TOKEN
        return ctypes.addressof(self._draw)

    @property
    def drawn(self) -> bool:
        """True if the evaluation has drawn a token, which `sample` returns next."""
        return bool(self._draw.token != NO_TOKEN)

    def sample(self, context: Context, row: int) -> int:
        """Sample a token from a row of logits, and record it for the penalties."""
        if (token := self._draw.token) != NO_TOKEN:
            self._draw.token = NO_TOKEN
            return int(token)
        candidates = self._candidates
        # The chain works on any array of candidates; it need not hold the whole vocabulary.
        if candidates is None or not candidates.select(context.logits_address(row)):
            return int(lib.llama_sampler_sample(self._chain, context.pointer, row))
        lib.llama_sampler_apply(self._chain, candidates.reference)
        token = candidates.selected
        lib.llama_sampler_accept(self._chain, token)
        return token

    def accept(self, token: int) -> None:
        """Record a token that was not sampled, for the penalties."""
        lib.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the samplers. A second call does nothing."""
        chain, self._chain = self._chain, None
        if chain is not None:
            lib.llama_sampler_free(chain)
