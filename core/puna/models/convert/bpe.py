"""Byte-level BPE tokenizers, as GPT-2, Llama 3 and Qwen have them."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

from puna.models.convert.folder import Folder
from puna.models.convert.tokens import Token, Vocabulary, added, base

log = logging.getLogger(__name__)

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END: Final = r"|\s+(?!\S)|\s+"
_WORDS: Final = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
_CASES: Final = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+" + _END
)
_ENDING: Final = _CONTRACTIONS + "?"
_GPT_2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SYMBOLS: Final = (
    r"""[!"#$%%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+%s"""
    + _END
)
_JAIS_SPACES: Final = "".join(
    [rf"|\s{{{length}}}(?!\S)" for length in ("512", "256", "128", "64", "32", "16", "8", "4")]
)
# llama.cpp has these patterns compiled in and GGUF stores only a name for each, so a pattern must be found here to be
# usable.
_KNOWN: Final = {
    _WORDS % "{1,3}" + _END: "llama-bpe",
    _WORDS % "" + _END: "qwen2",
    _WORDS % "{1,3}" + _JAIS_SPACES + r"|\s{1,2}(?!\S)|\s{1}": "jais-2",
    _CASES % ("", "", ""): "tekken",
    _CASES % (_ENDING, _ENDING, "{1,3}"): "gpt-4o",
    _SYMBOLS % r"[\r\n]*|\s*[\r\n]+": "deepseek-v3",
    _SYMBOLS % r"|[\r\n]": "spark2.5",
    r"\s?\p{L}+": "deepseek-coder",
    r"\p{N}{1,3} " + _WORDS % "+" + _END: "minicpm5",
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    + _END: "qwen35",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+" + _END: "seed-coder",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]" + _END: "bailingmoe",
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
    + _END: "exaone-moe",
    r"\d{1,3}(?=(?:\d{3})*\b) " + _CASES % (_ENDING, _ENDING, "{1,3}"): "tiny_aya",
    "digits bytes": "smollm",
    "bytes": "gpt-2",
    _GPT_2: "gpt-2",
}
"""llama.cpp's name by the patterns that text is cut with, or by the steps where no pattern is given.

A file's steps are compared all together first, then one by one: where several patterns follow each other, one of them
usually belongs to a single family. Control characters in patterns are written as escapes, since files have either.
"""
_ESCAPES: Final = str.maketrans({"\r": "\\r", "\n": "\\n", "\t": "\\t"})


def read(folder: Folder, tokenizer: Mapping[str, Any]) -> Vocabulary:
    """Return the tokens. Raises ConversionError."""
    tokens = {place: Token(text) for text, place in base(tokenizer).items()}
    tokens |= dict(added(folder, tokenizer, escaped=False))
    return Vocabulary("gpt2", tokens, pre=pre_tokenizer(tokenizer), has_merges=True)


def pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the pre-tokenizer; "default" if it has none."""
    steps = list(_steps(tokenizer.get("pre_tokenizer") or {}))
    # All steps together come first: the single patterns among them may be those of another family.
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
            yield pattern.translate(_ESCAPES)
        case {"type": "ByteLevel"}:
            # Without use_regex this step only maps bytes to characters; a Split step before it has cut the text.
            if step.get("use_regex", True):
                yield "bytes"
        case {"type": "Digits", "individual_digits": True}:
            yield "digits"
        case {"type": str(name)}:
            yield name
