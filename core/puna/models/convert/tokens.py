"""Tokens and vocabularies, in the form that GGUF stores."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from puna.models.convert.failure import ConversionError
from puna.models.convert.family import Pairs
from puna.models.convert.folder import Folder

_ADDED_SCORE: Final = -1000.0
_OPENED: Final = ("<|", "<\uff5c")  # the latter is as wide as an ideograph: DeepSeek's
_CLOSED: Final = ("|>", "\uff5c>")


class Kind(IntEnum):
    """A token's type, by GGUF's number."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    """Only recognised where special tokens are parsed."""
    USER_DEFINED = 4
    """Recognised in the text before other tokens."""
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Token:
    """A token."""

    text: str
    kind: Kind = Kind.NORMAL
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All tokens of a model."""

    model: str
    """GGUF's name of the tokenizer: gpt2, llama or bert."""
    tokens: Mapping[int, Token]
    pre: str = "default"
    """GGUF's name of the pre-tokenizer."""
    has_scores: bool = False
    has_merges: bool = False
    pairs: Pairs = field(default_factory=dict)
    """Further metadata."""

    def metadata(self, rows: int) -> Pairs:
        """Return the keys for a model of `rows` embeddings. Ids without a token get an unused one; tokens beyond
        are left out."""
        # llama.cpp refuses a vocabulary whose length differs from the rows of the embeddings, which are often padded.
        known = [self.tokens.get(place, Token(f"[PAD{place}]", Kind.UNUSED)) for place in range(rows)]
        found: Pairs = {
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": [token.text for token in known],
            "tokenizer.ggml.token_type": [int(token.kind) for token in known],
        }
        if self.has_scores:
            found["tokenizer.ggml.scores"] = [token.score for token in known]
        return found | self.pairs


def added(folder: Folder, tokenizer: Mapping[str, Any], *, escaped: bool) -> Iterator[tuple[int, Token]]:
    """Yield the added tokens of a tokenizer by id. If `escaped`, the "▁" that SentencePiece writes for a space becomes
    a space in tokens that are not special."""
    # Later files win: the model's own library reads tokenizer.json.
    entries: dict[int, tuple[str, bool]] = {}
    for text, place in folder.json("added_tokens.json").items():
        entries[_id(place)] = (text, False)
    for place, entry in folder.json("tokenizer_config.json").get("added_tokens_decoder", {}).items():
        entries[_id(int(place))] = (_text(entry.get("content")), entry.get("special") is True)
    for entry in tokenizer.get("added_tokens") or ():
        entries[_id(entry.get("id"))] = (_text(entry.get("content")), entry.get("special") is True)
    for place, (text, is_special) in entries.items():
        if is_special or _looks_special(text):
            yield place, Token(text, Kind.CONTROL, _ADDED_SCORE)
        else:
            yield place, Token(text.replace("▁", " ") if escaped else text, Kind.USER_DEFINED, _ADDED_SCORE)


def base(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of a tokenizer's own tokens. Raises ConversionError."""
    found = tokenizer.get("model", {}).get("vocab")
    if not isinstance(found, dict):
        raise ConversionError("tokenizer.json: the vocabulary is not an object")
    return {_text(text): _id(place) for text, place in found.items()}


def _looks_special(text: str) -> bool:
    """Whether a token looks special although it is not marked so, which is common on hubs."""
    return text[:2] in _OPENED and text[-2:] in _CLOSED


def _id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConversionError(f"a token has the id {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ConversionError(f"a token is {value!r}")
    return value
