"""Between text and token ids. The library knows plain text only, so special tokens in a text are found here."""

import re
from collections.abc import Iterable, Sequence

from puna.backend import InvalidRequestError
from puna_ctransformers.header import Header
from puna_ctransformers.native import NativeModel

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Token types of GGUF."""


class Vocabulary:
    """The tokens of a loaded model. Its methods may be called from any thread."""

    def __init__(self, header: Header, model: NativeModel) -> None:
        """Of a model and its file's header."""
        self._model = model
        self._texts: Sequence[bytes] = header.texts("tokenizer.ggml.tokens")
        kinds: Sequence[int] = header.numbers("tokenizer.ggml.token_type")
        self.size = len(self._texts)
        self.special = {index: self._texts[index] for index, kind in enumerate(kinds) if kind in (UNKNOWN, CONTROL)}
        self.adds_bos = header.flag("tokenizer.ggml.add_bos_token", True)
        self.adds_eos = header.flag("tokenizer.ggml.add_eos_token", False)
        self.bos_id = header.number("tokenizer.ggml.bos_token_id", 1)
        self.eos_id = header.number("tokenizer.ggml.eos_token_id", 2)
        self.ends = {self.eos_id, header.number("tokenizer.ggml.eot_token_id", self.eos_id)}
        # Text goes to the library and comes back as a C string, which a zero byte would end.
        zero = {b"\0": self._texts.index(b"<0x00>")} if b"<0x00>" in self._texts else {}
        marked = {index for index, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED)}
        self._marks = zero | {self._texts[index]: index for index in marked if self._texts[index]}
        self._zero = zero

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the ids of a text; `parse_special`: special tokens in it count as such."""
        tokens = [self.bos_id] if add_special and self.adds_bos else []
        marks = self._marks if parse_special else self._zero
        for part in _split(text.encode("utf-8", "replace"), marks):
            if part in marks:
                tokens.append(marks[part])
            elif part:
                tokens += self._model.tokenize(part)
        if add_special and self.adds_eos:
            tokens.append(self.eos_id)
        return tokens

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return a token's bytes; those of a special token are empty unless `special`."""
        if token in self.special:
            return self.special[token] if special else b""
        return b"\0" if token == self._zero.get(b"\0") else self._model.piece(token)

    def check(self, tokens: Sequence[int]) -> None:
        """InvalidRequestError: one of the ids is none."""
        for token in tokens:
            if not 0 <= token < self.size:
                raise InvalidRequestError(f"token {token} is not in the vocabulary of {self.size}")

    def text(self, token: int) -> str:
        """Return how a special token is written; empty if there is none of that id."""
        return self._texts[token].decode(errors="replace") if 0 <= token < self.size else ""


def _split(text: bytes, marks: Iterable[bytes]) -> list[bytes]:
    """Cut a text at marks, which are parts of their own; the longer one counts where two begin."""
    longest_first = sorted(marks, key=len, reverse=True)
    return re.split(b"(" + b"|".join(map(re.escape, longest_first)) + b")", text) if longest_first else [text]
