"""GELU against ggml's own, bit by bit."""

import ctypes

import numpy as np
import pytest


@pytest.mark.kernels
@pytest.mark.parametrize("threads", [1, 3])
def test_every_16_bit_float_and_what_lies_between_have_ggmls_bits(ggml, library, compute, threads):
    ggml.ggml_gelu.restype = ctypes.c_void_p
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = np.random.default_rng(1).standard_normal(1000, np.float32) * 6
    edges = np.nextafter(np.float32([10, 10, -10, -10]), np.float32([0, 20, 0, -20]))
    values = np.concatenate([halves, between, edges]).reshape(1, 1, 4, -1)
    before = library.puna_gelu_calls()
    found = compute((values,), ggml.ggml_gelu, values.shape, threads)
    assert library.puna_gelu_calls() == before + 1
    library.puna_enable(False)
    try:
        expected = compute((values,), ggml.ggml_gelu, values.shape, threads)
    finally:
        library.puna_enable(True)
    assert np.array_equal(found.view(np.int32), expected.view(np.int32))
