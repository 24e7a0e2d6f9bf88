"""Which files' heads are used, what they cost, and that others end no host."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tools.architectures import hyperparameters, make

from puna.backend import ModelSpec
from puna.gguf import reader as gguf
from puna_llama_cpp.binding import architectures, hidden_states
from puna_llama_cpp.estimate import MemoryEstimator
from puna_llama_cpp.generation.draft_head import Head
from puna_llama_cpp.generation.draft_model import DraftModel

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")

    def leave_out(*parts):
        def change(weights):
            for name in [name for name in weights if name.startswith(parts)]:
                del weights[name]

        return change

    make.make(folder / "model.gguf", "hy_v3", experts=True, heads=1)
    make.make(folder / "head.gguf", "hy_v3", experts=True, heads=1, change=leave_out("blk.0.", "blk.1."))
    make.make(folder / "plain.gguf", "hy_v3", experts=True)
    make.make(folder / "two.gguf", "hy_v3", experts=True, heads=2)
    make.make(folder / "one-too-many.gguf", "cohere2moe", experts=True, heads=2)
    make.make(folder / "stripped.gguf", "hy_v3", experts=True, heads=1, change=leave_out("blk.2.nextn.eh_proj"))
    make.make(folder / "other.gguf", "cohere2moe", experts=True, heads=1)
    make.make(folder / "m-rope.gguf", "glm4moe", experts=True, heads=1)
    make.make(folder / "hybrid.gguf", "qwen35", heads=1)
    make.make(folder / "hybrid-head.gguf", "qwen35", heads=1, change=leave_out("blk.0.", "blk.1."))
    make.make(folder / "plain-hybrid.gguf", "qwen35")
    make.make(folder / "next.gguf", "qwen3next", experts=True, heads=1)
    make.make(folder / "eagle.gguf", "eagle3")
    make.make(folder / "gemma.gguf", "gemma3")
    return folder


@pytest.fixture
def opened(parts, files):
    def opened(name, **spec):
        spec = {"path": str(files / f"{name}.gguf"), "context_length": 512, "draft_tokens": 4, **spec}
        return parts(**spec)

    return opened


def memory(found):
    return found.facts.size_bytes + found.facts.shared_bytes


def test_a_head_is_used_if_drafts_are_asked_for(opened):
    found = opened("model")
    assert isinstance(found.speculator.head, Head)
    assert found.weights.head
    assert opened("other").speculator.head is not None
    assert opened("two").speculator.head is not None


@pytest.mark.parametrize(
    "spec", [{"draft_tokens": 0}, {"backend_options": {"speculative_decoding": False}}, {"draft_path": "missing.gguf"}]
)
def test_a_head_that_is_not_asked_for_is_not_loaded(opened, spec):
    found = opened("model", **spec)
    assert not found.weights.head
    assert found.speculator is None or found.speculator.model is None
    assert memory(found) < memory(opened("model"))


@pytest.mark.parametrize("name", ["plain", "one-too-many", "stripped"])
def test_a_file_without_a_head_that_runs_is_unaffected(opened, name, caplog):
    found = opened(name)
    assert not found.weights.head
    assert found.speculator is None or found.speculator.model is None
    assert memory(found) == memory(opened(name, draft_tokens=0))
    assert "draft" not in caplog.text


def test_a_head_beside_m_rope_is_left_out(opened, caplog):
    assert opened("m-rope").speculator.model is None
    assert "its head does not read the states of the model" in caplog.text


@pytest.mark.parametrize("architecture", sorted(architectures.OWN_HEADS))
async def test_each_architecture_that_is_named_drafts_and_keeps_its_text(
    architecture, tmp_path, load, write, monkeypatch
):
    def without_m_rope(*given, **named):
        return {key: value for key, value in metadata(*given, **named).items() if key != "rope.dimension_sections"}

    metadata = make.metadata
    if architecture == "glm4moe":
        monkeypatch.setattr(make, "metadata", without_m_rope)
    make.make(tmp_path / "model.gguf", architecture, experts=True, heads=1)
    path = {"path": str(tmp_path / "model.gguf"), "context_length": 512}
    model, plain = await load(**path, draft_tokens=4), await load(**path)
    texts, end = await write(model, "the wind and river " * 20, max_tokens=40)
    assert texts == (await write(plain, "the wind and river " * 20, max_tokens=40))[0]
    assert end.draft_tokens > 0


@pytest.mark.parametrize("architecture", sorted(architectures.GIVES_LAYERS))
async def test_an_eagle_head_reads_each_architecture_that_is_named(architecture, files, tmp_path, load, write):
    make.make(tmp_path / "model.gguf", architecture, experts=True)
    path = {"path": str(tmp_path / "model.gguf"), "context_length": 512}
    model = await load(**path, draft_path=str(files / "eagle.gguf"), draft_tokens=4)
    texts, end = await write(model, "the wind and river " * 20, max_tokens=40)
    assert texts == (await write(await load(**path), "the wind and river " * 20, max_tokens=40))[0]
    assert end.draft_tokens > 0


def test_an_eagle_head_is_left_out_for_other_models(opened, files, caplog):
    assert opened("gemma", draft_path=str(files / "eagle.gguf")).speculator.model is None
    assert "a head of the architecture eagle3 is not run for gemma3" in caplog.text
    narrow = str(MODELS / "chatter.gguf")
    assert opened("gemma", path=narrow, draft_path=str(files / "eagle.gguf")).speculator.model is None


def test_a_head_for_a_model_that_takes_no_drafts_is_left_out(opened, files, caplog):
    assert opened("next", draft_path=str(files / "next.gguf")).speculator is None
    assert "qwen3next takes no drafts" in caplog.text


def test_an_unknown_version_of_llama_cpp_runs_no_head(opened, monkeypatch):
    monkeypatch.setattr(hidden_states, "available", lambda: False)
    assert opened("model").speculator.model is None


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("plain", "model"),
        ("plain", "head"),
        ("plain", "two"),
        ("plain-hybrid", "hybrid"),
        ("plain-hybrid", "hybrid-head"),
    ],
)
async def test_a_head_in_a_file_of_its_own_drafts(opened, load, write, files, target, name):
    draft = {"draft_path": str(files / f"{name}.gguf"), "draft_tokens": 4}
    assert opened(target, **draft).speculator.head is not None
    path = {"path": str(files / f"{target}.gguf"), "context_length": 512}
    texts, end = await write(await load(**path, **draft), "the wind and", max_tokens=60)
    assert texts == (await write(await load(**path), "the wind and", max_tokens=60))[0]
    assert end.draft_tokens > 0


def test_a_smaller_model_with_a_head_drafts_as_a_whole(opened, tmp_path, monkeypatch):
    shape = hyperparameters.shape_of("hy_v3")
    monkeypatch.setitem(hyperparameters.SHAPES, "hy_v3", replace(shape, hidden=shape.hidden // 2))
    make.make(tmp_path / "small.gguf", "hy_v3", experts=True, heads=1)
    found = opened("plain", draft_path=str(tmp_path / "small.gguf"))
    assert isinstance(found.speculator.model, DraftModel)


@pytest.mark.parametrize("target", [MODELS / "chatter.gguf", "other"])
def test_a_head_of_another_model_is_left_out(opened, files, target, caplog):
    """llama.cpp loads it like a model and ends the process at the first token."""
    path = target if isinstance(target, Path) else files / f"{target}.gguf"
    assert opened("head", path=str(path), draft_path=str(files / "head.gguf")).speculator.model is None
    assert "a head of the architecture hy_v3 is not run for" in caplog.text


@pytest.mark.parametrize("name", ["other", "hybrid"])
def test_the_memory_of_a_head_is_estimated(opened, files, name):
    """With the older states of a model that has a recurrent one."""

    def estimated(**spec):
        spec = {"path": str(files / f"{name}.gguf"), "context_length": 512, "parallel": 4, "threads": 1, **spec}
        [main] = MemoryEstimator().estimate(ModelSpec(**spec)).devices
        return np.array([main.weights_bytes, main.kv_cache_bytes, main.compute_bytes])

    weights, cache, compute = estimated(draft_tokens=4) - estimated()
    file = gguf.read(files / f"{name}.gguf")
    head = sum(4 * tensor.elements for tensor in file.tensors if tensor.name.startswith("blk.2."))
    assert 0.8 * head < weights <= head
    assert cache > 0
    loaded = memory(opened(name)) - memory(opened(name, draft_tokens=0))
    assert weights + cache + compute == pytest.approx(loaded, rel=0.05)
