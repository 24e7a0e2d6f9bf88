"""BERT's tokenizer: whole words, or their beginnings and continuations."""

from collections.abc import Mapping
from typing import Any

from puna.models.convert.folder import Folder
from puna.models.convert.tokens import Kind, Token, Vocabulary, added, base


def read(folder: Folder, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the tokens as GGUF has them: beginnings are marked, continuations are not. Raises ConversionError."""
    prefix = str(tokenizer.get("model", {}).get("continuing_subword_prefix", "##"))
    tokens = {place: Token(_marked(text, prefix)) for text, place in base(tokenizer).items()}
    for place, token in added(folder, tokenizer, escaped=False):
        tokens[place] = token if token.kind is Kind.CONTROL else Token(_marked(token.text, prefix), token.kind)
    settings = folder.json("config.json")
    return Vocabulary(
        "bert", tokens, pairs={"tokenizer.ggml.token_type_count": int(settings.get("type_vocab_size", 2))}
    )


def _marked(text: str, prefix: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return text
    return text.removeprefix(prefix) if text.startswith(prefix) else f"▁{text}"
