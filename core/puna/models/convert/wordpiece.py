"""WordPiece tokenizers, as BERT has them: tokens that begin a word and tokens that continue one."""

from collections.abc import Mapping
from typing import Any

from puna.models.convert.family import Pairs
from puna.models.convert.folder import Folder
from puna.models.convert.tokens import Kind, Token, Vocabulary, added, base


def read(folder: Folder, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the tokens in GGUF's form: tokens that begin a word are marked, continuations are not. Raises
    ConversionError."""
    prefix = str(tokenizer.get("model", {}).get("continuing_subword_prefix", "##"))
    # llama.cpp marks words as SentencePiece does, with "▁" at their beginning, where WordPiece marks the continuations.
    tokens = {place: Token(_marked(text, prefix)) for text, place in base(tokenizer).items()}
    for place, token in added(folder, tokenizer, escaped=False):
        tokens[place] = token if token.kind is Kind.CONTROL else Token(_marked(token.text, prefix), token.kind)
    settings = folder.json("config.json")
    lowercase, strip_accents = _normalizer(tokenizer)
    pairs: Pairs = {
        "tokenizer.ggml.token_type_count": int(settings.get("type_vocab_size", 2)),
        "tokenizer.ggml.normalizer.lowercase": lowercase,
        "tokenizer.ggml.normalizer.strip_accents": strip_accents,
    }
    return Vocabulary("bert", tokens, pairs=pairs)


def _normalizer(tokenizer: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether the tokenizer lower-cases text, and whether it strips accents."""
    step = tokenizer.get("normalizer") or {}
    steps = step.get("normalizers", []) if step.get("type") == "Sequence" else [step]
    names = {each.get("type") for each in steps}
    lowercase, strip_accents = "Lowercase" in names, "StripAccents" in names
    for each in steps:
        if each.get("type") == "BertNormalizer":
            lowercase = bool(each.get("lowercase", True))
            value = each.get("strip_accents")
            # BERT's rule: null means that accents are stripped from lower-cased text only.
            strip_accents = lowercase if value is None else bool(value)
    return lowercase, strip_accents


def _marked(text: str, prefix: str) -> str:
    # [CLS], [SEP] and the like are no words.
    if text.startswith("[") and text.endswith("]"):
        return text
    return text.removeprefix(prefix) if text.startswith(prefix) else f"▁{text}"
