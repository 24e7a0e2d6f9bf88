"""What a backend is told of a model, and what it tells, crosses the wire unchanged."""

from dataclasses import fields

import pytest

from puna.backend import ConstraintLimits, ModelFacts, ModelSpec
from puna.host.convert import facts_from_wire, facts_to_wire, spec_from_wire, spec_to_wire

SPEC = ModelSpec(
    path="/m/model.bin",
    name="sky:latest",
    format="ctranslate2",
    files={"model.bin": "/m/model.bin", "sub/vocabulary.json": "/blobs/sha256-1"},
    folder="/run/links",
    upstream="local/sky",
    adapter_paths=("/a",),
    projector_paths=("/p",),
    draft_path="/d",
    context_length=77,
    parallel=3,
    batch_size=5,
    gpu_layers=2,
    main_gpu=0,
    use_mmap=False,
    threads=9,
    draft_tokens=4,
    flash_attention="on",
    kv_cache_type="q8_0",
    backend_options={"beams": 2},
    weights_loaded=True,
    memory_bytes=1 << 40,
    constraint_limits=ConstraintLimits(seconds=1, mask_seconds=2, memory_bytes=3),
)


def test_every_field_of_a_spec_reaches_the_host():
    assert spec_from_wire(spec_to_wire("sky", SPEC)) == SPEC
    # A field that equals its default would also pass if it were lost.
    assert not [each.name for each in fields(SPEC) if getattr(SPEC, each.name) == each.default]


@pytest.mark.parametrize("tokenizer", [True, False])
def test_the_facts_reach_the_core(tokenizer):
    facts = ModelFacts(context_length=0, tokenizer=tokenizer, embedding_length=8, generates=False, eos_id=2)
    assert facts_from_wire(facts_to_wire(facts)) == facts
