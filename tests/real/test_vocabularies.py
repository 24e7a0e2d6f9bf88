"""Token lists of published vocabularies, against the lists that llama.cpp ships with them."""

from pathlib import Path

import llama_cpp.llama_cpp as lib
import pytest
from llama_cpp import Llama

from puna_llama_cpp.binding.vocabulary import Vocabulary

NAMES = (
    *("bert-bge", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "gpt-2", "llama-bpe"),
    *("llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder"),
)
SEPARATOR = "\n__ggml_vocab_test__\n"


@pytest.mark.parametrize("name", NAMES)
def test_every_text_has_the_tokens_that_are_expected(name, llama_cpp_sources):
    path = llama_cpp_sources / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{path}.inp").read_text(encoding="utf-8").split(SEPARATOR)
    expected = [
        [int(token) for token in line.split()] for line in Path(f"{path}.out").read_text(encoding="utf-8").split("\n")
    ]
    model = Llama(str(path), vocab_only=True, verbose=False)
    try:
        vocabulary = Vocabulary(lib.llama_model_get_vocab(model.model), adds_space=False)
        found = [list(vocabulary.tokenize(text, add_special=False, parse_special=False)) for text in texts]
    finally:
        model.close()
    assert len(texts) >= 40
    assert found == expected[: len(found)]
