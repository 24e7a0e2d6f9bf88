"""Activations quantized by native/quantize.c against ggml's own, bit by bit."""

import ctypes

import numpy as np
import pytest
from tests.plugins.ggml_kernels.arrays import pointer

Q8_0, BLOCK = 8, 32


def activations(count):
    """Yield random rows, and rows for special rules: ties, infinity, NaN, overflow, subnormal scales."""
    random = np.random.default_rng(4)
    usual = random.standard_normal(count, np.float32)
    yield from (usual * np.float32(factor) for factor in (1, 1e-44, 1e-38, 1e-36, 1e36))
    for base in (usual * 0, usual * 0 - np.float32(3.5), usual):
        for odd in (0.0, 3.5, -3.5, 4.5, np.inf, -np.inf, np.nan, -np.nan):
            row = base.copy()
            row[random.integers(0, count, 2)] = odd
            yield row
    halves = random.integers(-127, 128, count).astype(np.float32) / 2
    yield np.where(random.random(count) < 0.1, np.copysign(np.float32(63.5), usual), halves)
    yield from (random.integers(0, 2**32, count, dtype=np.uint32).view(np.float32) for _ in range(20))
    random_bits = random.integers(0, 2**32, count, dtype=np.uint32) & 0x80FFFFFF  # of two neighboring exponents
    yield from ((random_bits | exponent << 24).view(np.float32) for exponent in range(127))


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("name", "kind", "block", "size"), [("q8_0", Q8_0, BLOCK, 34), ("q8_1", 9, BLOCK, 36), ("q8_K", 15, 256, 292)]
)
def test_quantized_activations_have_ggmls_bits(ggml, library, name, kind, block, size):
    ours, own = (getattr(each, f"quantize_row_{name}") for each in (library, ggml))
    ggml.ggml_get_type_traits_cpu.restype = ctypes.POINTER(ctypes.c_void_p)
    in_use = ggml.ggml_get_type_traits_cpu(kind)[0]
    assert in_use == ctypes.cast(ours, ctypes.c_void_p).value != ctypes.cast(own, ctypes.c_void_p).value
    for blocks in (1, 2, 3, 4, 5, 8, 9, 13, 16, 18, 24, 33):
        for row in activations(blocks * block):
            quantized = [np.full(blocks * size + 5, 0xA5, np.uint8) for _ in range(2)]
            for quantize, out in zip((ours, own), quantized, strict=True):
                quantize(pointer(row), pointer(out), ctypes.c_int64(len(row)))
            assert np.array_equal(*quantized)
