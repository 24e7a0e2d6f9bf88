"""The decode path of attention against ggml's own, bit by bit. test_with_kernels.py compares the prefill path."""

import ctypes

import numpy as np
import pytest

from puna_ggml_kernels import loader


@pytest.fixture
def attend(ggml, compute):
    """Return a function that computes attention, on the decode path below 64 rows."""
    loader.set_order(tiled_from=loader.TILED_PREFILL_ROWS)

    def attend(q, k, v, mask, threads):
        factors = [ctypes.c_float(factor) for factor in (q.shape[-1] ** -0.5, 0, 0)]

        def attention(memory, *tensors):
            return ggml.ggml_flash_attn_ext(memory, *tensors, *factors)

        return compute((q, k, v, mask), attention, (q.size // q.shape[-1], v.shape[-1]), threads)

    return attend


def odd(values, random):
    """Scale values to where the rounding to 16 bits has rules of its own: subnormal, too large, and zero."""
    factors = np.array([1, 1, 1, 2.0**-14, 2.0**-24, 20000, 60000, 0, -0.0], np.float32)
    few = random.choice(factors, (*values.shape[:-2], 1, values.shape[-1]))  # some columns
    return values * few * random.choice(factors, (*values.shape[:-1], 1), p=[0.92, *[0.01] * 8])


@pytest.mark.kernels
@pytest.mark.parametrize("kind", ["usual", "tiny", "odd", "growing"])
@pytest.mark.parametrize(
    ("groups", "heads", "wide", "keys", "rows", "streams", "threads"),
    [
        (3, 3, 64, 300, 1, 2, 2),
        (2, 1, 64, 77, 2, 2, 1),
        (1, 8, 128, 1100, 1, 2, 1),
        (2, 2, 128, 40, 3, 1, 2),
        (1, 4, 80, 130, 2, 1, 1),
        (2, 5, 96, 600, 1, 1, 2),  # one row: its positions are shared out
    ],
)
def test_attention_has_ggmls_bits(library, attend, kind, groups, heads, wide, keys, rows, streams, threads):
    random = np.random.default_rng(8)
    q = random.standard_normal((streams, groups * heads, rows, wide), np.float32)
    k, v = random.standard_normal((2, streams, groups, keys, wide), np.float32)
    mask = np.where(random.random((streams, 1, 64, keys)) < 0.1, -np.inf, random.standard_normal(keys))
    if kind == "tiny":  # around a half's least normal, and none zero
        v *= 2.0 ** -random.integers(8, 17, wide)
    if kind == "odd":
        v = odd(v, random)
        mask[:, :, 0, : keys // 2] = -np.inf
    if kind == "growing":
        mask += np.linspace(0, 40, keys)
    k, v, mask = (np.clip(x, -65504 if x is v else None, 65504).astype(np.float16) for x in (k, v, mask))
    results = []
    for on in (True, False):
        library.puna_enable(on)
        before = library.puna_attention_calls()
        results.append(attend(q, k, v, mask, threads))
        assert library.puna_attention_calls() - before == on
    library.puna_enable(True)
    ours, own = results
    assert np.array_equal(np.isnan(ours), np.isnan(own))
    assert np.array_equal(np.nan_to_num(ours).view(np.int32), np.nan_to_num(own).view(np.int32))
    assert np.isfinite(own).mean() > 0.5
