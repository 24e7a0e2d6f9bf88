"""Norms of native/norm.c against ggml's own, bit by bit."""

import ctypes

import numpy as np
import pytest


@pytest.fixture
def normalize(ggml, compute):
    """Return a function that divides rows by the root of their mean square and multiplies them with weights."""

    def normalize(values, weights, threads):
        def norm(memory, rows, factors):
            return ggml.ggml_mul(
                memory, ctypes.c_void_p(ggml.ggml_rms_norm(memory, rows, ctypes.c_float(1e-5))), factors
            )

        return compute((values, weights), norm, values.shape, threads)

    return normalize


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("shape", "threads", "of_each", "calls"),
    [
        ((1, 1, 40, 576), 2, 1, 1),
        ((1, 1, 3, 100), 1, 1, 1),
        ((2, 5, 9, 64), 2, 1, 1),
        ((1, 1, 2, 4096), 1, 1, 1),
        ((1, 1, 401, 7), 1, 1, 1),
        ((1, 1, 2, 64), 2, 1, 0),  # one row for each thread
        ((1, 1, 40, 64), 1, 40, 0),  # rows with weights of their own
    ],
)
def test_norms_have_ggmls_bits(library, normalize, shape, threads, of_each, calls):
    random = np.random.default_rng(6)
    values, weights = (random.standard_normal(size, np.float32) for size in (shape, (1, 1, of_each, shape[-1])))
    rows = values.reshape(-1, shape[-1])
    rows *= np.float32(10.0) ** random.integers(-30, 20, (len(rows), 1))
    rows[0] = 2.0**-14  # each square too small for a sum that has the large ones in it, but not all together
    rows[0, :3] = 2**13, 2**11, 2
    rows[len(rows) // 2 :: 7, 1], rows[len(rows) // 3 :: 8], rows[6::9, -1] = np.inf, 0, np.nan
    results = []
    for on in (True, False):
        library.puna_enable(on)
        before = library.puna_norm_calls()
        results.append(normalize(values, weights, threads))
        assert library.puna_norm_calls() - before == (calls if on else 0)
    library.puna_enable(True)
    ours, own = results
    assert np.array_equal(np.isnan(ours), np.isnan(own))
    assert np.array_equal(np.nan_to_num(ours).view(np.int32), np.nan_to_num(own).view(np.int32))
