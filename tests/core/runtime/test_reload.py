from dataclasses import replace

import pytest

from puna.backend import ModelFacts, ModelSpec
from puna.runtime.reload import difference
from puna.runtime.requirements import ModelRequirements

LOADED = ModelRequirements(key="k", name="m", spec=ModelSpec(path="/m", context_length=4096, gpu_layers=0))
FACTS = ModelFacts(context_length=4096)


def differs(loaded=LOADED, facts=FACTS, backend="b", automatic=(), wants="", **fields):
    want = replace(LOADED, spec=replace(LOADED.spec, **fields), automatic=frozenset(automatic), backend=wants)
    return difference(loaded, backend, facts, want)


def test_the_same_again_fits():
    assert differs() == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("context_length", 2048),
        ("batch_size", 64),
        ("gpu_layers", 1),
        ("main_gpu", 0),
        ("use_mmap", True),
        ("threads", 3),
        ("draft_tokens", 4),
        ("draft_path", "/d"),
        ("adapter_paths", ("/a",)),
        ("projector_paths", ("/p",)),
        ("backend_options", {"a": 1}),
    ],
)
def test_another_value_means_loading_anew(field, value):
    assert differs(**{field: value}) == field


@pytest.mark.parametrize("field", ["parallel", "flash_attention", "kv_cache_type"])
def test_what_the_server_decides_is_not_compared(field):
    assert differs(**{field: "on" if field != "parallel" else 9}) == ""


def test_the_backends_own_number_of_layers_fits_all():
    assert differs(gpu_layers=-1) == ""


@pytest.mark.parametrize("field", ["context_length", "batch_size"])
def test_values_that_nobody_asked_for_fit_each_other(field):
    loaded = replace(LOADED, automatic=frozenset({field}))
    assert differs(loaded, automatic={field}, **{field: 77}) == ""
    assert differs(loaded, **{field: 77}) == field
    assert differs(automatic={field}, **{field: 77}) == field


def test_contexts_are_compared_as_clamped():
    loaded = replace(LOADED, spec=replace(LOADED.spec, context_length=100_000))
    facts = ModelFacts(context_length=8192)
    assert differs(loaded, facts, context_length=8192) == ""
    assert differs(loaded, facts, context_length=50_000) == ""
    assert differs(loaded, facts, context_length=8191) == "context_length"


def test_a_context_that_the_backend_rounded_up_fits_its_own_wish():
    assert differs(facts=ModelFacts(context_length=4352)) == ""


def test_another_backend_means_loading_anew():
    assert differs(wants="b") == ""
    assert differs(wants="c") == "backend"
    assert differs(replace(LOADED, backend="b"), wants="") == "backend"


def test_a_model_without_files_is_loaded_once_whatever_a_request_wants_of_this_machine():
    loaded = replace(LOADED, spec=replace(LOADED.spec, path=""))
    fields = {"path": "", "context_length": 7, "gpu_layers": 3, "threads": 2, "batch_size": 9, "use_mmap": False}
    assert differs(loaded, **fields) == ""
    assert differs(loaded, **fields, backend_options={"a": 1}) == "backend_options"
