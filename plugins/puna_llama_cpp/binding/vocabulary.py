"""A model's vocabulary: text to token ids, and token ids to bytes. Safe to use from any thread."""

import ctypes
from collections.abc import Sequence

import llama_cpp.llama_cpp as lib

from puna.backend import InvalidRequestError

_PIECE_BYTES = 256


class Vocabulary:
    """The tokens of one model; valid as long as its weights."""

    def __init__(self, vocab: lib.llama_vocab_p, *, adds_space: bool) -> None:
        """Wrap llama.cpp's vocabulary. `adds_space`: whether tokenizing puts a space in front of a text."""
        self.pointer = vocab
        self.size = lib.llama_vocab_n_tokens(vocab)
        self.bos = int(lib.llama_vocab_bos(vocab))
        self.eos = int(lib.llama_vocab_eos(vocab))
        self.sep = int(lib.llama_vocab_sep(vocab))
        self.adds_bos = bool(lib.llama_vocab_get_add_bos(vocab))
        self.adds_eos = bool(lib.llama_vocab_get_add_eos(vocab))
        self.adds_sep = bool(lib.llama_vocab_get_add_sep(vocab))
        # A model may have several, such as an end of turn beside an end of text. llama.cpp finds them all in the file.
        self.end_tokens = frozenset(token for token in range(self.size) if lib.llama_vocab_is_eog(vocab, token))
        self._adds_space = adds_space
        self._output_bytes: list[bytes | None] = [None] * self.size

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text."""
        data = text.encode()
        # At most one token for each byte, and a few special tokens around them; llama.cpp says if it needs more.
        room = len(data) + 8
        while True:
            tokens = (lib.llama_token * room)()
            count = lib.llama_tokenize(self.pointer, data, len(data), tokens, room, add_special, parse_special)
            if count >= 0:
                return tokens[:count]
            room = -count

    def tokenize_continuation(self, text: str) -> list[int]:
        """Return the token ids of a text, with special tokens, that continues another text.

        No space is put in front of it.
        """
        tokens = self.tokenize(text, add_special=False, parse_special=True)
        if not self._adds_space:
            return tokens
        # Behind a line end, which merges with no other text, the tokens are those of the text alone.
        behind = self.tokenize("\n" + text, add_special=False, parse_special=True)
        passed = b""
        for place, token in enumerate(behind):
            passed += self.token_bytes(token, special=True)
            if passed.lstrip(b" ") == b"\n":
                return behind[place + 1 :]
        return tokens

    def output_bytes(self, token: int) -> bytes:
        """Return the bytes that a token adds to an output text: none for special tokens.

        Cached, since every step asks.
        """
        output_bytes = self._output_bytes[token]
        if output_bytes is None:
            output_bytes = self._output_bytes[token] = self.token_bytes(token, special=False)
        return output_bytes

    def token_bytes(self, token: int, *, special: bool, strip: bool = False) -> bytes:
        """Return the bytes of a token; those of special tokens only if `special`. `strip` drops one leading space."""
        room = _PIECE_BYTES
        # A negative result is the number of bytes that the token needs.
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = lib.llama_token_to_piece(self.pointer, token, buffer, room, int(strip), special)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> list[bytes]:
        """Return the bytes of each token. Joined, they are the text without the space that tokenizing put in front."""
        # Ids come from clients here, and llama.cpp does not check them.
        self.validate(tokens)
        pieces = [self.token_bytes(token, special=True) if special else self.output_bytes(token) for token in tokens]
        if pieces and self._adds_space:
            pieces[0] = self.token_bytes(tokens[0], special=special, strip=True)
        return pieces

    def validate(self, tokens: Sequence[int]) -> None:
        """Raise InvalidRequestError if one of these ids is not a token. llama.cpp would read out of bounds."""
        for token in tokens:
            if not 0 <= token < self.size:
                raise InvalidRequestError(f"token {token} is not in the vocabulary of {self.size} tokens")

    def text(self, token: int) -> str:
        """Return the text of a special token; empty if the model has none (-1)."""
        return self.token_bytes(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def is_special(self, token: int) -> bool:
        """Return whether a token is not text: control tokens, and user-defined ones of the form `<this>`."""
        kind = lib.llama_vocab_get_attr(self.pointer, token)
        if kind & lib.LLAMA_TOKEN_ATTR_USER_DEFINED:
            raw_text = self.token_bytes(token, special=True)
            return raw_text.startswith(b"<") and raw_text.endswith(b">")
        return bool(kind & lib.LLAMA_TOKEN_ATTR_CONTROL)

    def special_tokens(self, texts: Sequence[str]) -> frozenset[int]:
        """Return the token ids of these texts. A text of more than one token has none."""
        found = (self.tokenize(text, add_special=False, parse_special=True) for text in texts)
        return frozenset(tokens[0] for tokens in found if len(tokens) == 1)
