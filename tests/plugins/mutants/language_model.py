"""A made-up language model: deterministic, fast, and dependent on every token of its context.

It writes the words of a lexicon. Which word comes next is decided by a hash of the whole context, so that a token too
many, one that is lost or one of another sequence shows in the logits. Within a word the model prefers the tokens that
continue it. Everything else has small random logits.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tests.plugins.mutants.vocabulary import EOS, LEXICON, SPECIAL, Vocabulary

ROWS = 1024
MODULUS = (1 << 61) - 1
WORDS = [f"{word} ".encode() for word in LEXICON]
BEST = 6
"""How many words may follow."""


@dataclass(frozen=True, slots=True)
class State:
    """What the model knows of its context."""

    key: int = 12345
    """A hash of all tokens."""
    begin: int = 12345
    """The hash at the beginning of the word."""
    fragment: bytes = b""
    """What there is of the word."""


class LanguageModel:
    """Computes logits."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Draw the noise, always the same."""
        self.vocabulary = vocabulary
        generator = np.random.default_rng(7)
        self.noise = generator.normal(-3.0, 1.2, (ROWS, len(vocabulary))).astype(np.float32)
        self.noise[:, list(SPECIAL)] -= 6
        self.preference = generator.uniform(0, 5.5, (ROWS, len(WORDS))).astype(np.float32)

    def advance(self, state: State, token: int) -> State:
        """Evaluate a token."""
        key = (state.key * 1_000_003 + token + 1) % MODULUS
        raw = b"" if token in SPECIAL or token >= len(self.vocabulary) else self.vocabulary.raw[token]
        fragment = (state.fragment + raw)[-64:]
        if raw.endswith(b" ") or not fragment:
            return State(key, key, b"")
        return State(key, state.begin, fragment)

    def logits(self, state: State) -> NDArray[np.float32]:
        """Return the logits of the next token."""
        logits = self.noise[state.key % ROWS].copy()
        preference = self.preference[state.begin % ROWS]
        for index in words_with(state.fragment):
            score = float(preference[index])
            rest = WORDS[index][len(state.fragment) :]
            for token, length in self.beginnings(rest):
                logits[token] = max(logits[token], score + 0.4 * length)
        if not words_with(state.fragment):
            logits[self.vocabulary.ids[b" "]] = 5.0
        if not state.fragment:
            logits[EOS] = -3 + 10 * ((state.key >> 20) % 1000 / 1000) ** 8
        return logits

    def beginnings(self, rest: bytes) -> tuple[tuple[int, int], ...]:
        """Return the tokens with which a text may begin, with their lengths."""
        return _beginnings(self.vocabulary, rest)


@lru_cache(maxsize=4096)
def words_with(fragment: bytes) -> tuple[int, ...]:
    """Return the words that begin with a text and go on."""
    return tuple(index for index, word in enumerate(WORDS) if word.startswith(fragment) and word != fragment)


@lru_cache(maxsize=4096)
def _beginnings(vocabulary: Vocabulary, rest: bytes) -> tuple[tuple[int, int], ...]:
    lengths = range(1, len(rest) + 1)
    return tuple((vocabulary.ids[rest[:length]], length) for length in lengths if rest[:length] in vocabulary.ids)
