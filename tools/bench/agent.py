"""A synthetic agent that calls tools in a loop, for what speculative decoding gains on it.

agent.gguf says these words: a Markov chain in which a word is followed by one of a few others, with equal probability.
Each tool call is a form of FIXED words that never change, with SLOTS arguments among them. An argument is drawn anew
for each call from CHOICES ones. A step of the agent is one request: its prompt holds all calls before and their
results, and ends with the word that opens the next call. So a call can be drafted from the transcript if the same tool
was called before, or from answers in other sessions, except for its arguments.

WANDER is another part of the chain, the hardest text to draft: short stretches occur again and again, and what follows
them is drawn from four words.
"""

import itertools
import random
from collections.abc import Mapping
from typing import Final

TOOLS: Final = 6
SLOTS: Final = 4
FIXED: Final = 56
CHOICES: Final = 8
ARGUMENT_WORDS: Final = 3
CALLS: Final = 12
"""Calls in a session."""
END: Final = "<|im_end|>"
WANDER_WORDS: Final = 200
_WORDS = ("".join(letters) for letters in itertools.product("cpqstvwxyz", "aeiou", "cpqstvwxyz", "aeiou"))


def _chain() -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Return the words that may follow each word, and the word that opens each tool's call."""
    follows: dict[str, tuple[str, ...]] = {}
    openers = []
    for _ in range(TOOLS):
        fixed = [next(_WORDS) for _ in range(FIXED)]
        openers.append(fixed[0])
        for index, word in enumerate(fixed):
            behind = (fixed[index + 1] if index + 1 < FIXED else END,)
            if index % (FIXED // SLOTS) == FIXED // SLOTS // 2:
                arguments = [[next(_WORDS) for _ in range(ARGUMENT_WORDS)] for _ in range(CHOICES)]
                for argument in arguments:
                    follows |= {left: (right,) for left, right in itertools.pairwise(argument)}
                    follows[argument[-1]] = behind
                behind = tuple(argument[0] for argument in arguments)
            follows[word] = behind
    return follows, openers


def _wander() -> dict[str, tuple[str, ...]]:
    draw = random.Random(2)
    words = [next(_WORDS) for _ in range(WANDER_WORDS)]
    return {word: tuple(draw.sample(words, 4)) for word in words}


_CALLS, OPENERS = _chain()
WANDER: Final = _wander()
CHAIN: Final[Mapping[str, tuple[str, ...]]] = _CALLS | WANDER
"""The words that may follow each word that agent.gguf says."""
