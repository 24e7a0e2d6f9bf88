"""Which assistants are used, what they cost, and that others end no host."""

import numpy as np
import pytest
from tools.architectures import hyperparameters, make

from puna.backend import InvalidRequestError, ModelSpec
from puna.gguf import reader as gguf
from puna_llama_cpp.binding import hidden_states
from puna_llama_cpp.estimate import MemoryEstimator
from puna_llama_cpp.generation.assistant import Assistant
from puna_llama_cpp.generation.draft_model import DraftModel

ASSISTANT = "gemma4-assistant"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assistants")
    make.make(folder / "model.gguf", "gemma4")
    make.make(folder / "assistant.gguf", ASSISTANT)
    make.make(folder / "gemma3.gguf", "gemma3")
    make.make(folder / "llama.gguf", "llama")
    return folder


@pytest.fixture
def opened(parts, files):
    def opened(model="model", draft="assistant", **spec):
        path, draft_path = (str(files / f"{name}.gguf") for name in (model, draft))
        return parts(**{"path": path, "draft_path": draft_path, "context_length": 512, "draft_tokens": 4, **spec})

    return opened


@pytest.fixture
def made(files, tmp_path, monkeypatch):
    """Return a function that makes an assistant or a model with other metadata, and returns its path."""

    def made(architecture, change=lambda _: None, **keys):
        metadata = hyperparameters.metadata(architecture, experts=False)
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        monkeypatch.setattr(make, "metadata", lambda *_, **__: {**metadata, **keys})
        path = tmp_path / f"{architecture}-changed.gguf"
        make.make(path, architecture, change=change)
        return str(path)

    return made


def test_an_assistant_is_used(opened):
    assert isinstance(opened().speculator.head, Assistant)


def test_an_unknown_version_of_llama_cpp_runs_no_assistant(opened, monkeypatch, caplog):
    monkeypatch.setattr(hidden_states, "available", lambda: False)
    assert opened().speculator.model is None
    assert "a head of the architecture gemma4-assistant is not run" in caplog.text


@pytest.mark.parametrize("model", ["gemma3", "llama", "assistant"])
async def test_an_assistant_of_another_model_is_left_out(files, load, write, model, caplog):
    spec = {"path": str(files / f"{model}.gguf"), "draft_path": str(files / "assistant.gguf"), "draft_tokens": 4}
    if model == "assistant":
        with pytest.raises(InvalidRequestError, match="only drafts for another model, whose DRAFT names it"):
            await load(**spec)
        return
    texts, _ = await write(await load(**spec), "the wind")
    assert f"a head of the architecture gemma4-assistant is not run for {model}" in caplog.text
    assert texts == (await write(await load(path=spec["path"]), "the wind"))[0]


def test_the_model_of_an_assistant_drafts_like_any_other(opened):
    assert isinstance(opened("llama", "model").speculator.model, DraftModel)
    assert isinstance(opened("model", "model").speculator.model, DraftModel)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"embedding_length_out": 320}, "its embedding_length_out is 320, but the model's embedding_length is 256"),
        ({"attention__sliding_window": 32}, "its attention.sliding_window is 32"),
        ({"nextn_predict_layers": 1}, "1 of its 2 layers draft, and not all"),
        ({"attention__sliding_window_pattern": [False, False]}, "it has no layers of both kinds"),
        ({"attention__sliding_window_pattern": [True, True]}, "it has no layers of both kinds"),
        (
            {"attention__head_count_kv": 4},
            "its layer 0 reads keys and values of the shape (4, 64, 64), but the",
        ),
        ({"attention__head_count_kv": [2, 1]}, "its layer 1 reads keys and values of the shape (1, 64, 64)"),
        ({"attention__head_count_kv": 0}, "its layer 0 reads keys and values of the shape (0, 64, 64)"),
        ({"attention__head_count": 3}, "its layer 0 has 3 heads for 2 heads of keys"),
        ({"attention__key_length_swa": 128}, "its layer 0 reads keys and values of the shape (2, 128, 64)"),
        ({"attention__value_length": 32}, "its layer 1 reads keys and values of the shape (2, 64, 32)"),
        ({"rope__dimension_count": 128}, "its layer 0 rotates 128 elements of 64"),
        ({"rope__dimension_count_swa": 63}, "its layer 0 rotates 63 elements of 64"),
        ({"block_count": 0, "nextn_predict_layers": 0}, "it has 0 layers"),
    ],
)
def test_an_assistant_of_another_shape_is_left_out(opened, made, keys, reason, caplog):
    """llama.cpp would read beyond the model's cache, or end the process."""
    assert opened(draft_path=made(ASSISTANT, **keys)).speculator.model is None
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("pattern", "shared"), [([True, True, False, True, True, True], 0), ([False, True, False, False, False, False], 2)]
)
def test_a_model_whose_last_layers_are_others_takes_no_assistant(opened, made, pattern, shared, caplog):
    model = made("gemma4", attention__sliding_window_pattern=pattern, attention__shared_kv_layers=shared)
    assert opened(path=model).speculator.model is None
    assert "finds no layer of its kind among the last ones of the model" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["nextn.pre_projection.weight", "nextn.post_projection.weight", "blk.1.attn_q.weight", "rope_freqs.weight"],
)
def test_an_assistant_without_one_of_its_tensors_is_left_out(opened, made, name, caplog):
    assert opened(draft_path=made(ASSISTANT, change=lambda weights: weights.pop(name))).speculator.model is None
    assert name in caplog.text


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "nextn.post_projection.weight", "blk.0.layer_output_scale.weight"]
)
def test_an_assistant_with_a_tensor_of_another_shape_is_left_out(opened, made, name, caplog):
    def change(weights):
        weights[name] = np.ones([2 * size for size in weights[name].shape], np.float32)

    assert opened(draft_path=made(ASSISTANT, change=change)).speculator.model is None
    assert name in caplog.text


@pytest.mark.parametrize("name", ["blk.0.attn_norm.weight", "nextn.pre_projection.weight"])
def test_an_assistant_of_types_that_ggml_cannot_compute_is_left_out(opened, made, name, caplog):
    kind = np.float16 if "norm" in name else np.float64

    def change(weights):
        weights[name] = weights[name].astype(kind)

    assert opened(draft_path=made(ASSISTANT, change=change)).speculator.model is None
    assert "no tokens are drafted" in caplog.text


def test_the_memory_of_an_assistant_is_estimated(opened, files):
    """It has no KV cache."""

    def estimated(**spec):
        spec = {"path": str(files / "model.gguf"), "context_length": 512, "parallel": 4, "threads": 1, **spec}
        [main] = MemoryEstimator().estimate(ModelSpec(**spec)).devices
        return np.array([main.weights_bytes, main.kv_cache_bytes, main.compute_bytes])

    def memory(found):
        return found.facts.size_bytes + found.facts.shared_bytes

    weights, cache, compute = estimated(draft_tokens=4, draft_path=str(files / "assistant.gguf")) - estimated()
    assert weights == pytest.approx(sum(each.size for each in gguf.read(files / "assistant.gguf").tensors), rel=0.01)
    assert cache == 0
    loaded = memory(opened()) - memory(opened(draft_path=None, draft_tokens=0))
    assert weights + compute == pytest.approx(loaded, rel=0.05)
