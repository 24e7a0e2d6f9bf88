"""Tokenizers of bytes, joined pair by pair: GPT-2's kind, as Llama 3 and Qwen have it."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from puna.models.convert.folder import Folder
from puna.models.convert.tokens import Token, Vocabulary, added, base

log = logging.getLogger(__name__)

_WORDS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
_WORDS_END: Final = r"|\s+(?!\S)|\s+"
_CASES: Final = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ENDINGS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_DEEPSEEK_V3: Final = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_KNOWN: Final = {
    _WORDS % "{1,3}" + _WORDS_END: "llama-bpe",
    _WORDS % "" + _WORDS_END: "qwen2",
    _CASES % ("", "", ""): "tekken",
    _CASES % (_ENDINGS, _ENDINGS, "{1,3}"): "gpt-4o",
    _DEEPSEEK_V3: "deepseek-v3",
    r"\s?\p{L}+": "deepseek-coder",
    "digits bytes": "smollm",
    "bytes": "gpt-2",
}
"""llama.cpp's name by the pattern that text is cut with, or by the steps where no pattern is given."""


def read(folder: Folder, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the tokens. Raises ConversionError."""
    tokens = {place: Token(text) for text, place in base(tokenizer).items()}
    tokens |= dict(added(folder, tokenizer, escaped=False))
    return Vocabulary("gpt2", tokens, pre=pre_tokenizer(tokenizer), has_merges=True)


def pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """Name how text is cut before it is tokenized; "default" where llama.cpp has no name for it."""
    steps = list(_steps(tokenizer.get("pre_tokenizer") or {}))
    for step in [" ".join(steps), *steps]:
        if step in _KNOWN:
            return _KNOWN[step]
    log.warning("tokenizer.json: no name is known for this way to cut text: %s", steps)
    return "default"


def _steps(step: Mapping[str, Any]) -> Iterator[str]:
    match step:
        case {"type": "Sequence", "pretokenizers": list(steps)}:
            for each in steps:
                yield from _steps(each)
        case {"type": "Split", "pattern": {"Regex": str(pattern)}}:
            yield pattern
        case {"type": "ByteLevel"}:
            if step.get("use_regex", True):
                yield "bytes"
        case {"type": "Digits", "individual_digits": True}:
            yield "digits"
        case {"type": str(name)}:
            yield name
