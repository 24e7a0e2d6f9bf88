"""Converts between text and token ids.

The library knows plain text only, so special tokens in a text are found here.
"""

import re
from collections.abc import Iterable, Sequence

from puna.backend import InvalidRequestError
from puna_ctransformers.header import Header
from puna_ctransformers.native import NativeModel

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Token types of GGUF."""


class Vocabulary:
    """The tokens of a loaded model. May be used from any thread."""

    def __init__(self, header: Header, model: NativeModel) -> None:
        """Read the vocabulary from the header of the model's file."""
        self._model = model
        self._texts: Sequence[bytes] = header.texts("tokenizer.ggml.tokens")
        # Files without types leave this empty. All tokens then count as text.
        kinds: Sequence[int] = header.numbers("tokenizer.ggml.token_type")
        self.size = len(self._texts)
        self.special = {index: self._texts[index] for index, kind in enumerate(kinds) if kind in (UNKNOWN, CONTROL)}
        self.adds_bos = header.flag("tokenizer.ggml.add_bos_token", True)
        self.adds_eos = header.flag("tokenizer.ggml.add_eos_token", False)
        self.bos_id = header.number("tokenizer.ggml.bos_token_id", 1)
        self.eos_id = header.number("tokenizer.ggml.eos_token_id", 2)
        self.end_tokens = {self.eos_id, header.number("tokenizer.ggml.eot_token_id", self.eos_id)}
        # Text goes to the library and comes back as a C string, which a zero byte would end. So the token of a zero
        # byte is found here, like a special token.
        zero_byte = {b"\0": self._texts.index(b"<0x00>")} if b"<0x00>" in self._texts else {}
        literal_ids = {index for index, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)}
        self._literal_tokens = zero_byte | {self._texts[index]: index for index in literal_ids if self._texts[index]}
        self._zero_byte = zero_byte

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text. `parse_special`: the text may contain special tokens."""
        tokens = [self.bos_id] if add_special and self.adds_bos else []
        literal_tokens = self._literal_tokens if parse_special else self._zero_byte
        for part in _split_at(text.encode("utf-8", "replace"), literal_tokens):
            if part in literal_tokens:
                tokens.append(literal_tokens[part])
            elif part:
                tokens += self._model.tokenize(part)
        if add_special and self.adds_eos:
            tokens.append(self.eos_id)
        return tokens

    def token_bytes(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of a token; those of a special token only if `special`."""
        if token in self.special:
            return self.special[token] if special else b""
        return b"\0" if token == self._zero_byte.get(b"\0") else self._model.token_bytes(token)

    def validate(self, tokens: Sequence[int]) -> None:
        """Raise InvalidRequestError if one of these ids is not a token."""
        for token in tokens:
            if not 0 <= token < self.size:
                raise InvalidRequestError(f"token {token} is not in the vocabulary of {self.size}")

    def text(self, token: int) -> str:
        """Return the text of a special token; empty if there is none with this id."""
        return self._texts[token].decode(errors="replace") if 0 <= token < self.size else ""


def _split_at(text: bytes, literal_tokens: Iterable[bytes]) -> list[bytes]:
    """Split a text at the literal tokens, which become parts of their own.

    Of two that begin at one place the longer counts.
    """
    # An alternation takes the first alternative that matches, not the longest.
    longest_first = sorted(literal_tokens, key=len, reverse=True)
    return re.split(b"(" + b"|".join(map(re.escape, longest_first)) + b")", text) if longest_first else [text]
