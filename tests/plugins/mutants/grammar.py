"""Structured output for the tiny model, by llguidance."""

import llguidance
import numpy as np
from numpy.typing import NDArray
from tests.plugins.mutants.vocabulary import EOS, SPECIAL, Vocabulary

from puna.backend import Constraint
from puna_llama_cpp.structured_output.compiler import Compiler, next_mask


class _Tokens:
    """The vocabulary as llguidance reads it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = [b"\xff" * (token in SPECIAL) + raw for token, raw in enumerate(vocabulary.raw)]
        self.eos_token_id, self.bos_token_id = EOS, None
        self.special_token_ids: list[int] = []
        self.is_tokenizer_wrapper = True

    def __call__(self, _text: str) -> list[int]:
        return []


class Matcher:
    """The state of one constraint."""

    def __init__(self, native: llguidance.LLMatcher, size: int) -> None:
        self.native, self.size = native, size

    def mask(self) -> NDArray[np.bool_]:
        """Return which tokens may come next."""
        bits = np.unpackbits(np.frombuffer(next_mask(self.native), np.uint8), bitorder="little")
        return bits[: self.size].astype(bool)

    def accept(self, token: int) -> None:
        self.native.consume_token(token)


class Grammar:
    """Compiles constraints. What takes long waits for the first one."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.compiler: Compiler | None = None

    def matcher(self, constraint: Constraint) -> Matcher:
        if self.compiler is None:
            tokenizer = llguidance.LLTokenizer(_Tokens(self.vocabulary), eos_token=EOS)
            self.compiler = Compiler(tokenizer, {text: token for token, text in SPECIAL.items()})
        return Matcher(self.compiler.matcher(constraint.kind, constraint.text), len(self.vocabulary))
