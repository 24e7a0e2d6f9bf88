import logging

import pytest
from tests.core.models.convert import tokenizers

from puna.models.convert import bpe

DEEPSEEK_3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
"""As the published file has it: with a carriage return and a line feed themselves."""
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}


BYTES = {"type": "ByteLevel", "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([split(tokenizers.SPLITS["llama3"]), BYTES], "llama-bpe"),
        ([split(tokenizers.SPLITS["qwen2"]), BYTES], "qwen2"),
        ([split(TEKKEN), BYTES], "tekken"),
        ([split(r"\p{N}{1,3}"), split("[一-龥]+"), split(DEEPSEEK_3), BYTES], "deepseek-v3"),
        ([split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), DIGITS, BYTES], "deepseek-coder"),
        ([split(r"\p{N}{1,3}"), split(tokenizers.SPLITS["qwen2"].replace(r"|\p{N}|", r"|\p{N}+|")), BYTES], "minicpm5"),
        ([DIGITS, {"type": "ByteLevel"}], "smollm"),
        ([{"type": "ByteLevel", "use_regex": True}], "gpt-2"),
    ],
)
def test_ways_to_cut_text(steps, name):
    assert bpe.pre_tokenizer({"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}) == name
    if len(steps) == 1:
        assert bpe.pre_tokenizer({"pre_tokenizer": steps[0]}) == name


def test_an_unknown_way_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        assert bpe.pre_tokenizer({"pre_tokenizer": split("x")}) == "default"
    assert "no name is known" in caplog.text
