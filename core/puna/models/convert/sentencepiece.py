"""SentencePiece's tokenizers, from tokenizer.model or from what tokenizer.json tells of them."""

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from puna.models.convert.failure import ConversionError
from puna.models.convert.folder import Folder
from puna.models.convert.tokens import Kind, Token, Vocabulary, added, base

_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")
_FIXED64: Final = 1  # a wire type; 0 is a number, 2 bytes, 5 four bytes
# Fields of sentencepiece_model.proto.
_MODEL_PIECE, _MODEL_NORMALIZER = 1, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_KIND = 1, 2, 3
_ADDS_SPACE: Final = 3


def of_model(folder: Folder, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the tokens of tokenizer.model. Raises ConversionError."""
    tokens: dict[int, Token] = {}
    adds_space = True
    try:
        for field, value in _fields((folder.path / "tokenizer.model").read_bytes()):
            if field == _MODEL_PIECE and isinstance(value, bytes):
                tokens[len(tokens)] = _piece(value)
            elif field == _MODEL_NORMALIZER and isinstance(value, bytes):
                adds_space = dict(_fields(value)).get(_ADDS_SPACE, 1) != 0
    except (ValueError, IndexError, struct.error):
        raise ConversionError("tokenizer.model: not a model of SentencePiece") from None
    return _vocabulary(tokens, folder, tokenizer, adds_space)


def of_json(folder: Folder, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the tokens of tokenizer.json, where pairs are joined in an order: the earlier, the better the score."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(tokenizer["model"].get("merges") or ()):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    unknown = tokenizer["model"].get("unk_token")
    tokens: dict[int, Token] = {}
    for text, place in base(tokenizer).items():
        kind = Kind.UNKNOWN if text == unknown else Kind.BYTE if _BYTE.fullmatch(text) else Kind.NORMAL
        tokens[place] = Token(text, kind, -float(ranks.get(text, len(ranks))) if kind is Kind.NORMAL else 0.0)
    return _vocabulary(tokens, folder, tokenizer, _adds_space(tokenizer))


def is_like(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json of pairs stands for one of SentencePiece: unknown letters become bytes."""
    decoder = tokenizer.get("decoder") or {}
    steps = [step.get("type") for step in decoder.get("decoders", [decoder])]
    return tokenizer["model"].get("byte_fallback") is True or "ByteFallback" in steps


def _vocabulary(tokens: dict[int, Token], folder: Folder, tokenizer: Mapping[str, Any], adds_space: bool) -> Vocabulary:
    for place, token in added(folder, tokenizer, escaped=True):
        if place not in tokens or tokens[place].kind is not Kind.UNKNOWN:
            tokens[place] = token
    # True is what llama.cpp takes for granted.
    pairs = {} if adds_space else {"tokenizer.ggml.add_space_prefix": False}
    return Vocabulary("llama", tokens, has_scores=True, pairs=dict(pairs))


def _adds_space(tokenizer: Mapping[str, Any]) -> bool:
    steps = [*_parts(tokenizer.get("normalizer"), "normalizers")]
    steps += _parts(tokenizer.get("pre_tokenizer"), "pretokenizers")
    for step in steps:
        if step.get("type") == "Prepend":
            return True
        if step.get("type") == "Metaspace":
            scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            return bool(scheme != "never")
    return False


def _parts(step: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    return list((step or {}).get(key, [step] if step else []))


def _piece(data: bytes) -> Token:
    found = dict(_fields(data))
    text, score, kind = found.get(_PIECE_TEXT, b""), found.get(_PIECE_SCORE, 0), found.get(_PIECE_KIND, Kind.NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, int) or not isinstance(kind, int):
        raise ValueError
    number = struct.unpack("<f", score.to_bytes(4, "little"))[0]
    return Token(text.decode(), Kind(kind), number)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message: numbers, or bytes. ValueError, IndexError: it is none."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        match tag & 7:
            case 0:
                value, place = _varint(data, place)
                yield tag >> 3, value
            case 2:
                length, place = _varint(data, place)
                if place + length > len(data):
                    raise ValueError
                yield tag >> 3, data[place : place + length]
                place += length
            case 1 | 5 as kind:
                size = 8 if kind == _FIXED64 else 4
                yield tag >> 3, int.from_bytes(data[place : place + size], "little")
                place += size
            case _:
                raise ValueError


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7
