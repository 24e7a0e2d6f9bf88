import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.backend import Sampling
from puna_llama_cpp.sampling import top_k_prefilter
from puna_llama_cpp.sampling.top_k_prefilter import MAX_CANDIDATES, top_candidates


@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([1.0, 20.0, 1000.0]))
def test_the_likeliest_are_among_them(seed, count, steps):
    """`steps` is how finely values differ: the coarser, the more are equal."""
    logits = np.round(np.random.default_rng(seed).standard_normal(MAX_CANDIDATES * 4) * steps).astype(np.float32)
    found = top_candidates(logits, count)
    if found is not None:
        assert list(found) == sorted(set(found))
        least = np.sort(logits)[-count]
        assert set(np.flatnonzero(logits >= least)) <= set(found)


def test_where_most_are_ruled_out_all_must_be_looked_at():
    logits = np.full(MAX_CANDIDATES * 4, -np.inf, np.float32)
    logits[:10] = 1
    assert top_candidates(logits, 40) is None


def test_small_vocabularies_are_left_whole():
    assert top_candidates(np.zeros(MAX_CANDIDATES, np.float32), 1) is None


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"top_k": 20},
        {"top_k": 1},
        {"top_k": 20, "repeat_penalty": 1.3, "repeat_last_n": 8},
        {"top_k": 10, "presence_penalty": 0.5, "frequency_penalty": 0.2, "repeat_last_n": 6},
        {"top_k": 20, "top_p": 0.5, "min_p": 0.05, "typical_p": 0.9},
    ],
)
async def test_the_same_is_drawn_with_and_without(load, write, monkeypatch, sampling):
    model = await load()
    asked = [{"sampling": Sampling(seed=seed, **({"temperature": 0.9} | sampling))} for seed in range(8)]
    plain = [await write(model, "hello there", **request) for request in asked]
    monkeypatch.setattr(top_k_prefilter, "MAX_CANDIDATES", 128)
    monkeypatch.setattr(top_k_prefilter, "_GROUP", 2)
    assert top_candidates(np.arange(300, dtype=np.float32), 20) is not None
    narrowed = [await write(model, "hello there", **request) for request in asked]
    assert [texts for texts, _ in narrowed] == [texts for texts, _ in plain]
