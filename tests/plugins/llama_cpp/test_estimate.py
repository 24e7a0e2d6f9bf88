"""Estimates of memory against what the same specification takes once it is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

from puna.backend import ModelSpec, UnsupportedError
from puna_llama_cpp.binding import memory_breakdown
from puna_llama_cpp.estimate import MemoryEstimator
from puna_llama_cpp.loading import open_model

MODELS = Path(__file__).parents[2] / "models"
DEMO = Path(__file__).parents[3] / "core/puna/demo"


@pytest.fixture
def estimate():
    estimator = MemoryEstimator()
    yield estimator.estimate
    estimator.close()


def spec_of(path, *, projector="", adapter="", **fields):
    return ModelSpec(
        path=str(path),
        threads=1,
        projector_paths=(str(MODELS / projector),) if projector else (),
        adapter_paths=(str(MODELS / adapter),) if adapter else (),
        **{"parallel": 0, **fields},
    )


def total(estimate):
    return sum(each.weights_bytes + each.kv_cache_bytes + each.compute_bytes for each in estimate.devices)


CASES = {
    "f16": {"path": MODELS / "chatter.gguf"},
    "q8_0": {"path": DEMO / "llamita.gguf", "kv_cache_type": "q8_0", "parallel": 3},
    "q4_0": {"path": DEMO / "llamita.gguf", "kv_cache_type": "q4_0", "parallel": 2, "context_length": 2048},
    "f32 without flash attention": {
        "path": DEMO / "llamita.gguf",
        "kv_cache_type": "f32",
        "flash_attention": "off",
    },
    "all caches at once": {"path": DEMO / "llamita.gguf", "backend_options": {"lazy_kv_cache": False}},
    "little memory": {"path": DEMO / "llamita.gguf", "memory_bytes": 20_000_000},
    "a batch": {"path": DEMO / "llamita.gguf", "batch_size": 2000, "parallel": 1},
    "mapped": {"path": DEMO / "llamita.gguf", "use_mmap": True},
    "a projector": {"path": MODELS / "chatter.gguf", "projector": "chatter-eye.gguf", "parallel": 1},
    "a projector of another kind": {"path": MODELS / "roamer.gguf", "projector": "roamer-eye.gguf", "parallel": 1},
    "an adapter": {"path": MODELS / "chatter.gguf", "adapter": "chatter-lora.gguf", "parallel": 1},
    "a draft model": {"path": MODELS / "chatter.gguf", "draft_path": str(MODELS / "chatter.gguf"), "draft_tokens": 4},
    "a draft model for three": {
        "path": DEMO / "llamita.gguf",
        "draft_path": str(DEMO / "llamita.gguf"),
        "draft_tokens": 4,
        "kv_cache_type": "q8_0",
        "parallel": 3,
    },
    "a draft model of no use": {
        "path": DEMO / "llamita.gguf",
        "draft_path": str(MODELS / "chatter.gguf"),
        "draft_tokens": 4,
    },
    "embeddings": {"path": DEMO / "llamita-embed.gguf"},
    "ranking": {"path": MODELS / "ranker.gguf"},
    "another architecture": {"path": MODELS / "wanderer.gguf", "parallel": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_loading_takes_what_was_estimated(estimate, case):
    spec = spec_of(**CASES[case])
    estimated = estimate(spec)
    loaded = open_model(spec, lambda _: None, lambda: False)
    loaded.close()
    facts = loaded.facts
    # llama.cpp logs its buffers in hundredths of a megabyte, which matters for models as small as these.
    assert total(estimated) == pytest.approx(facts.size_bytes + facts.shared_bytes, rel=0.02, abs=40_000)
    assert (estimated.context_length, estimated.parallel) == (facts.context_length, facts.parallel)
    assert estimated.max_context_length >= facts.context_length


def test_an_estimate_beside_loaded_weights_counts_the_adapter_alone(estimate):
    spec = spec_of(MODELS / "chatter.gguf", adapter="chatter-lora.gguf", parallel=1)
    first = open_model(spec_of(MODELS / "chatter.gguf"), lambda _: None, lambda: False)
    second = open_model(spec, lambda _: None, lambda: False)
    first.close()
    second.close()
    estimated = estimate(replace(spec, weights_loaded=True))
    assert total(estimated) == pytest.approx(second.facts.size_bytes, rel=0.02, abs=40_000)
    assert total(estimated) + second.facts.shared_bytes == pytest.approx(total(estimate(spec)), rel=0.02, abs=40_000)
    assert estimated.process_bytes == 0


def test_a_longer_context_takes_more_and_the_model_is_opened_once(estimate, monkeypatch):
    spec = spec_of(DEMO / "llamita.gguf", parallel=1)
    short = estimate(spec_of(DEMO / "llamita.gguf", parallel=1, context_length=512))
    # Nothing opens the file again, so what the first estimate has read of it is enough.
    monkeypatch.setattr("puna_llama_cpp.estimate.Weights", None)
    longer = estimate(spec_of(DEMO / "llamita.gguf", parallel=1, context_length=1024))
    assert longer.devices[0].kv_cache_bytes == 2 * short.devices[0].kv_cache_bytes > 0
    assert longer.devices[0].weights_bytes == short.devices[0].weights_bytes
    assert estimate(spec).context_length > 1024


def test_a_draft_model_adds_weights_and_a_cache(estimate):
    spec = {"path": DEMO / "llamita.gguf", "parallel": 2}
    (alone,) = estimate(spec_of(**spec)).devices
    (twice,) = estimate(spec_of(**spec, draft_path=str(DEMO / "llamita.gguf"), draft_tokens=4)).devices
    (off,) = estimate(spec_of(**spec, draft_path=str(DEMO / "llamita.gguf"), draft_tokens=0)).devices
    assert twice.weights_bytes == 2 * alone.weights_bytes
    assert twice.kv_cache_bytes == 2 * alone.kv_cache_bytes
    assert (off.weights_bytes, off.kv_cache_bytes) == (alone.weights_bytes, alone.kv_cache_bytes)


def test_slots_that_take_memory_only_when_used_are_told_apart(estimate):
    found = estimate(spec_of(DEMO / "llamita.gguf", context_length=512))
    (main,) = found.devices
    assert main.deferred_kv_cache_bytes == (found.parallel - 1) * main.kv_cache_bytes > 0
    # Slots that a setting asks for count.
    (main,) = estimate(spec_of(DEMO / "llamita.gguf", context_length=512, parallel=found.parallel)).devices
    assert main.deferred_kv_cache_bytes == 0


def test_an_unknown_llama_cpp_is_not_asked(estimate, monkeypatch):
    memory_breakdown._function.cache_clear()
    monkeypatch.setattr(memory_breakdown, "VERSIONS", ())
    try:
        with pytest.raises(UnsupportedError, match="does not tell"):
            estimate(spec_of(MODELS / "chatter.gguf"))
    finally:
        memory_breakdown._function.cache_clear()
