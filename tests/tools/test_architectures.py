"""The tool that runs a tiny model of each architecture."""

import gguf
import pytest
from tools.architectures import checks, hyperparameters, make

from puna.backend import TokenLogprob


def text(*pairs):
    return [TokenLogprob(b"", token, logprob) for token, logprob in pairs]


def test_a_difference_counts_up_to_where_the_tokens_part():
    assert checks.difference(text((1, -0.5), (2, -0.25)), text((1, -0.5), (2, -0.5))) == 0.25
    assert checks.difference(text((1, -0.5), (2, -1.0), (3, -9)), text((1, -0.5), (4, -1.0), (3, -1))) == 0
    assert checks.difference(text((1, -0.5), (2, -0.25)), text((1, -0.5))) == 0
    assert checks.difference(text((1, float("nan"))), text((1, -1.0))) == float("inf")


def test_llama_cpp_names_the_tensors_of_an_architecture(tmp_path):
    made = make.make(tmp_path / "model.gguf", "qwen3moe", experts=True)
    assert {each.name for each in gguf.GGUFReader(tmp_path / "model.gguf").tensors} == set(made)
    assert made["blk.1.ffn_up_exps.weight"].shape[0] == hyperparameters.EXPERTS


def test_metadata_that_llama_cpp_does_not_take_is_refused(tmp_path):
    with pytest.raises(make.RefusedError, match="gptj"):
        make.make(tmp_path / "model.gguf", "gptj")
    with pytest.raises(make.RefusedError, match=r"qwen3next.*zero experts"):
        make.make(tmp_path / "model.gguf", "qwen3next")


def test_each_key_is_of_a_type_that_gguf_has():
    for architecture in hyperparameters.architectures():
        values = hyperparameters.metadata(architecture, experts=True)
        assert all(isinstance(value, (bool, int, float, list)) for value in values.values()), architecture
