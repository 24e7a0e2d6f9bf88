"""SentencePiece's tokenizers, from tokenizer.model or from a tokenizer.json that was made of it.

A tokenizer.model is a protobuf message. protobuf parses it with a description of the few fields that are needed; other
fields are passed over. The parser bounds how deep a message may nest, and the file's size is bounded before.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from puna.models.convert.failure import ConversionError
from puna.models.convert.folder import Folder
from puna.models.convert.tokens import Kind, Token, Vocabulary, added, base
from puna.models.storage import bounded_files

_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")
_LARGEST: Final = 16 << 20
"""Bytes of a tokenizer.model. Large vocabularies take five million. A message of two bytes takes fifty in memory."""
_Field: Final = descriptor_pb2.FieldDescriptorProto


def of_model(folder: Folder, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the tokens of tokenizer.model. Raises ConversionError."""
    try:
        data = bounded_files.read(folder.path / "tokenizer.model", _LARGEST)
        model = _message_class().FromString(data)
        tokens = {place: _token(piece) for place, piece in enumerate(model.pieces)}
    except (ValueError, DecodeError):
        raise ConversionError("tokenizer.model: not a model of SentencePiece") from None
    return _vocabulary(tokens, folder, tokenizer, model.normalizer.adds_space)


def of_json(folder: Folder, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the tokens of tokenizer.json. It has an order of merges instead of scores: an earlier merge gets a
    better score."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(tokenizer["model"].get("merges") or ()):
        # Two merges may give the same token. The earlier one decides, since a tokenizer would apply it first.
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    unknown = tokenizer["model"].get("unk_token")
    tokens: dict[int, Token] = {}
    for text, place in base(tokenizer).items():
        kind = Kind.UNKNOWN if text == unknown else Kind.BYTE if _BYTE.fullmatch(text) else Kind.NORMAL
        tokens[place] = Token(text, kind, -float(ranks.get(text, len(ranks))) if kind is Kind.NORMAL else 0.0)
    return _vocabulary(tokens, folder, tokenizer, _adds_space(tokenizer))


def is_like(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a BPE tokenizer.json was made from a SentencePiece model: unknown characters become bytes."""
    decoder = tokenizer.get("decoder") or {}
    steps = [step.get("type") for step in decoder.get("decoders", [decoder])]
    return tokenizer["model"].get("byte_fallback") is True or "ByteFallback" in steps


def _vocabulary(tokens: dict[int, Token], folder: Folder, tokenizer: Mapping[str, Any], adds_space: bool) -> Vocabulary:
    for place, token in added(folder, tokenizer, escaped=True):
        # llama.cpp finds the unknown token by its type, so an added token must not turn it into a control token.
        if place not in tokens or tokens[place].kind is not Kind.UNKNOWN:
            tokens[place] = token
    # True is llama.cpp's default.
    pairs = {} if adds_space else {"tokenizer.ggml.add_space_prefix": False}
    return Vocabulary("llama", tokens, has_scores=True, pairs=dict(pairs))


def _adds_space(tokenizer: Mapping[str, Any]) -> bool:
    # Older files add the space in a normalizer, newer ones in a Metaspace pre-tokenizer.
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


def _token(piece: Any) -> Token:  # noqa: ANN401 (the class of the messages is made at run time)
    return Token(piece.text.decode(), Kind(piece.kind), piece.score)


@cache
def _message_class() -> Any:  # noqa: ANN401 (likewise)
    """Return the class of a tokenizer.model, with the fields of SentencePiece's ModelProto that are needed.

    The text is declared as bytes, so that a text that is not UTF-8 is an error when it is decoded here. The kind is
    declared as a number, since protobuf would pass over an unknown value of an enumeration and take the default.
    """
    file = descriptor_pb2.FileDescriptorProto(name="puna/sentencepiece.proto", package="puna", syntax="proto2")
    piece = file.message_type.add(name="Piece")
    piece.field.add(name="text", number=1, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)
    piece.field.add(name="score", number=2, type=_Field.TYPE_FLOAT, label=_Field.LABEL_OPTIONAL)
    piece.field.add(
        name="kind", number=3, type=_Field.TYPE_INT32, label=_Field.LABEL_OPTIONAL, default_value=str(Kind.NORMAL.value)
    )
    normalizer = file.message_type.add(name="Normalizer")
    normalizer.field.add(
        name="adds_space", number=3, type=_Field.TYPE_BOOL, label=_Field.LABEL_OPTIONAL, default_value="true"
    )
    model = file.message_type.add(name="Model")
    for name, number, kind, label in (
        ("pieces", 1, ".puna.Piece", _Field.LABEL_REPEATED),
        ("normalizer", 3, ".puna.Normalizer", _Field.LABEL_OPTIONAL),
    ):
        model.field.add(name=name, number=number, type=_Field.TYPE_MESSAGE, type_name=kind, label=label)
    pool = DescriptorPool()  # a pool of its own: the names mean nothing to the rest of the process
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("puna.Model"))
