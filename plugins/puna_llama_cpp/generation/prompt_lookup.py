"""Prompt lookup: speculative decoding whose draft tokens come from the sequence itself.

Texts that quote, edit or extract repeat long stretches of their prompt. So the tokens that followed the last few tokens
when those occurred before are likely to follow them again. The engine evaluates these draft tokens together with the
newest token, which costs little more than the newest token alone, and then samples one token after the other from the
logits. Each draft token that equals the sampled one is accepted and saves a step. The first that differs ends the
draft, and the KV cache is truncated behind the last accepted token. The samplers see the same logits as without
drafts, so the text is the same (except for the last bits of logits, which depend on the size of a batch).

The draft length adapts to the acceptance rate. It doubles when the whole draft is accepted and falls to the number of
accepted tokens otherwise. When less than half of a draft is accepted, drafting pauses for a number of steps that
doubles with each such draft.
"""

from collections.abc import Sequence
from typing import Final

NGRAM: Final = 3
"""Tokens that must be equal for an earlier place to count as the same."""
MAX_DRAFT_TOKENS: Final = 7
"""Draft tokens in one step. With the newest token they fill the eight outputs that a context has."""
_INITIAL_DRAFT_TOKENS = 2
_MAX_PAUSE_STEPS = 256


class PromptLookup:
    """Proposes draft tokens for one sequence."""

    def __init__(self) -> None:
        """Start with short drafts."""
        self._following_index: dict[tuple[int, ...], int] = {}
        """For each n-gram, the index of the token that followed its latest occurrence."""
        self._indexed = 0
        self._draft_length = _INITIAL_DRAFT_TOKENS
        self._misses = 0
        self._pause_steps = 0

    def draft(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Return up to `limit` tokens that may follow `tokens`; often none.

        Between two calls tokens may only be appended. Call `reset` after any other change.
        """
        # Each token is indexed once. The n-gram at the very end is left out: nothing follows it yet, and it would find
        # itself.
        for end in range(max(self._indexed, NGRAM), len(tokens)):
            self._following_index[tuple(tokens[end - NGRAM : end])] = end
        self._indexed = len(tokens)
        if self._pause_steps:
            self._pause_steps -= 1
            return []
        start = self._following_index.get(tuple(tokens[-NGRAM:]))
        if start is None:
            return []
        drafted: list[int] = []
        for index in range(start, start + min(limit, self._draft_length)):
            # Behind the last token the draft continues with itself, which follows a repetition of any period.
            token = tokens[index] if index < len(tokens) else drafted[index - len(tokens)]
            if token < 0:  # a vector of an image, which no sampler can draw
                break
            drafted.append(token)
        return drafted

    def update(self, drafted: int, accepted: int) -> None:
        """Adapt the draft length to the number of draft tokens that were accepted."""
        if accepted == drafted:
            self._draft_length, self._misses = min(2 * self._draft_length, MAX_DRAFT_TOKENS), 0
            return
        self._draft_length = max(accepted, 1)
        if 2 * accepted < drafted:
            # A pause costs nothing while drafts fail, but every failed draft lengthens a step for all sequences.
            self._misses += 1
            self._pause_steps = min(1 << (self._misses + 1), _MAX_PAUSE_STEPS)

    def reset(self) -> None:
        """Drop the index, after a context shift has moved the tokens."""
        self._following_index.clear()
        self._indexed = 0
