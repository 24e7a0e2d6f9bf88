"""Text to token ids and back.

The `tokenizers` package turns text into ids. It turns ids back into text only as a whole, since a token may hold part
of a character. A stream needs the bytes of each token, so they are read from its spelling here. There are three ways of
spelling: byte-level (each byte is a printable character, such as Ġ for a space), SentencePiece (▁ for a space, <0x0A>
for a byte that no piece has), and WordPiece (## in front of a piece that continues a word). The decoder that
tokenizer.json names tells them apart.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from tokenizers import Tokenizer

from puna.backend import InvalidRequestError
from puna_ctranslate2.folder import Folder

BYTE_PIECE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
FIRST_SUBSTITUTE: Final = 256
"""The characters that stand for unprintable bytes begin here."""


def byte_characters() -> dict[str, int]:
    """Return the byte for which each character stands in byte-level spellings.

    Printable bytes of Latin-1 stand for themselves; the others are numbered from U+0100 in order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(FIRST_SUBSTITUTE + n): byte for n, byte in enumerate(others)}


class Vocabulary:
    """The tokens of a model."""

    def __init__(self, folder: Folder) -> None:
        """Read tokenizer.json and vocabulary.json. Raises InvalidRequestError if they are not what they should be."""
        text = folder.path("tokenizer.json").read_text(encoding="utf-8")
        try:
            self._tokenizer, self._plain = Tokenizer.from_str(text), Tokenizer.from_str(text)
            described = json.loads(text)
        except Exception as error:  # the package raises a bare Exception
            raise InvalidRequestError(f"tokenizer.json cannot be read: {error}") from error
        for each in (self._tokenizer, self._plain):
            # Both are meant for batches of training. Puna truncates texts itself, and says so.
            each.no_truncation()
            each.no_padding()
        self._plain.encode_special_tokens = True
        self.spellings = folder.spellings()
        if self._tokenizer.get_vocab_size() > len(self.spellings):
            raise InvalidRequestError("tokenizer.json has more tokens than vocabulary.json")
        config = folder.json("config.json")
        named = {str(config.get(key) or "") for key in ("bos_token", "eos_token", "unk_token")}
        added = described.get("added_tokens") or []
        self._special = {each["content"] for each in added if each.get("special")} | (named & set(self.spellings))
        self._verbatim = {each["content"] for each in added}
        self._decode = _decoder_of(described.get("decoder") or {})
        self._prefix, self._suffix = self._added_ends()
        self.end_ids = sorted({*folder.end_ids(), *self.ids(config.get("eos_token") or "")})
        """Tokens with which the model ends an answer."""

    @property
    def prefix(self) -> list[int]:
        """The tokens that tokenizing puts in front of a text."""
        return self._prefix

    @property
    def suffix(self) -> list[int]:
        """The tokens that tokenizing puts behind a text."""
        return self._suffix

    def ids(self, spelling: str) -> list[int]:
        """Return the id of a spelling; none if the vocabulary lacks it."""
        return [self.spellings.index(spelling)] if spelling in self.spellings else []

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text."""
        tokenizer = self._tokenizer if parse_special else self._plain
        return list(tokenizer.encode(text, add_special_tokens=add_special).ids)

    def validate(self, tokens: Sequence[int]) -> None:
        """Raise InvalidRequestError for an id that the vocabulary does not have."""
        for token in tokens:
            if not 0 <= token < len(self.spellings):
                raise InvalidRequestError(f"the vocabulary has no token {token}")

    def is_special(self, token: int) -> bool:
        """Return whether a token is a special one, which has no text of its own."""
        return self.spellings[token] in self._special

    def token_bytes(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of a token; none for a special one unless `special`."""
        spelling = self.spellings[token]
        if spelling in self._special:
            return spelling.encode() if special else b""
        return spelling.encode() if spelling in self._verbatim else self._decode(spelling)

    def _added_ends(self) -> tuple[list[int], list[int]]:
        """Return what tokenizing adds in front and behind, as a text shows."""
        plain, whole = (self.tokenize("a", add_special=add, parse_special=True) for add in (False, True))
        for begin in range(len(whole) - len(plain) + 1):
            if plain and whole[begin : begin + len(plain)] == plain:
                return whole[:begin], whole[begin + len(plain) :]
        return [], []


def _decoder_of(described: dict[str, Any]) -> Any:  # noqa: ANN401 (a function from a spelling to bytes)
    """Return the function that reads spellings, for the decoder that tokenizer.json describes."""
    kinds = {described.get("type")} | {each.get("type") for each in described.get("decoders") or []}
    if "ByteLevel" in kinds:
        table = byte_characters()
        # A token that was added later may hold characters which stand for no byte.
        return lambda text: b"".join(bytes([table[each]]) if each in table else each.encode() for each in text)
    if "WordPiece" in kinds:
        mark = str(described.get("prefix") or "##")
        return lambda text: text.removeprefix(mark).encode() if text.startswith(mark) else f" {text}".encode()
    return _sentencepiece


def _sentencepiece(text: str) -> bytes:
    if match := BYTE_PIECE.fullmatch(text):
        return bytes([int(match[1], 16)])
    return text.replace("▁", " ").encode()
