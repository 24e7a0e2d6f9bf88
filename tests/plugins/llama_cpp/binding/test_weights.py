from pathlib import Path

import pytest

from puna.backend import InvalidRequestError, ModelSpec
from puna_llama_cpp.binding.weights import LoadCancelledError, Weights

MODELS = Path(__file__).parents[3] / "models"


def load(path, cancelled=lambda: False, **spec):
    return Weights(ModelSpec(path=str(path), threads=1, **spec), lambda done: None, cancelled)


def test_what_the_file_says_is_known():
    weights = load(MODELS / "chatter.gguf")
    assert weights.metadata("general.architecture") == weights.architecture == "llama"
    assert weights.metadata("no.such.key") == ""
    assert weights.cache_bytes_per_token == 2 * 2 * 32 * 2  # layers, keys and values, numbers, bytes
    assert not weights.embeds_only
    weights.close()


def test_an_embedding_model_is_known_by_its_file():
    weights = load(MODELS / "embedder.gguf")
    assert weights.embeds_only
    weights.close()


def test_a_cancelled_load_is_no_error_of_the_file():
    with pytest.raises(LoadCancelledError):
        load(MODELS / "chatter.gguf", cancelled=lambda: True)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(InvalidRequestError):
        load(path)


def test_an_adapter_of_another_model_is_refused():
    with pytest.raises(InvalidRequestError):
        load(MODELS / "scripted.gguf", adapter_paths=(str(MODELS / "embedder.gguf"),))
