import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.backend import Sampling
from puna_ggml_kernels.loader import installed
from puna_llama_cpp.sampling import top_k_prefilter
from puna_llama_cpp.sampling.top_k_prefilter import MAX_CANDIDATES, Candidates, top_candidates


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


def selected(logits, count, kernels):
    """Return the tokens and logits that `Candidates` gives to llama.cpp's samplers; None: it gives none."""
    with pytest.MonkeyPatch.context() as patched:
        if not kernels:
            patched.setattr(top_k_prefilter, "installed", lambda: None)
        candidates = Candidates(len(logits), count)
    if not candidates.select(logits.ctypes.data):
        return None
    array = candidates.reference.contents
    assert (array.selected, array.sorted) == (-1, False)
    return [(array.data[i].id, array.data[i].logit) for i in range(array.size)]


@pytest.mark.kernels
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([1.0, 20.0, 1000.0]), st.integers(0, 99))
def test_the_kernels_select_what_numpy_selects(seed, count, steps, more):
    draw = np.random.default_rng(seed)
    # Any number of logits: it need divide neither into groups nor into registers.
    logits = np.round(draw.standard_normal(MAX_CANDIDATES * 4 + more) * steps).astype(np.float32)
    logits[draw.integers(0, len(logits), 50)] = -np.inf
    assert installed()
    found = selected(logits, count, kernels=True)
    assert found == selected(logits, count, kernels=False)
    if (tokens := top_candidates(logits, count)) is None:
        assert found is None
    else:
        assert found == [(token, logits[token]) for token in tokens]


@pytest.mark.kernels
def test_the_kernels_select_no_more_than_there_is_room_for():
    logits = np.zeros(MAX_CANDIDATES * 4, np.float32)
    logits[: MAX_CANDIDATES - 1] = 1
    assert len(selected(logits, 40, kernels=True)) == MAX_CANDIDATES - 1
    logits[: MAX_CANDIDATES + 1] = 1
    assert selected(logits, 40, kernels=True) is None


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
