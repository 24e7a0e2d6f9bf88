"""Products of native/matmul.c against ggml's own dot products, bit by bit."""

import ctypes

import numpy as np
import pytest
from tests.plugins.ggml_kernels.arrays import pointer, random_rows

F32, Q8_0, Q8_1, BLOCK = 0, 8, 9, 32
TYPES = {"q4_1": (3, Q8_1), "q5_0": (6, Q8_0), "q5_1": (7, Q8_1), "q8_0": (8, Q8_0)}
"""The numbers of a type of matrix and of the type of the columns that it is multiplied with."""


class Parameters(ctypes.Structure):
    """The struct ggml_compute_params."""

    _fields_ = [("ith", ctypes.c_int), ("nth", ctypes.c_int), ("wsize", ctypes.c_size_t)]
    _fields_ += [("wdata", ctypes.c_void_p), ("threadpool", ctypes.c_void_p), ("use_ref", ctypes.c_bool)]


@pytest.fixture
def multiply(library):
    """Return a function that multiplies rows with columns of two types."""

    def multiply(kinds, left, right, blocks, threads=1):
        out = np.full((len(right), len(left) + 3), np.nan, np.float32)
        sizes = [ctypes.c_int64(size) for size in (len(left), len(right), blocks)]
        a, b, c = (
            (pointer(array), ctypes.c_int64(stride))
            for array, stride in ((left, blocks), (right, blocks), (out, len(left) + 3))
        )
        for thread in range(threads):
            parameters = Parameters(thread, threads, 0, None, None, False)
            done = library.llamafile_sgemm(ctypes.byref(parameters), *sizes, *a, *b, *c, *kinds, F32)
            assert done & 0xFF
        assert np.isnan(out[:, len(left) :]).all()
        return out[:, : len(left)]

    return multiply


@pytest.fixture
def columns_of(ggml):
    """Return a function that quantizes activations as ggml does before a product."""

    def columns_of(kind, values):
        name, size = {Q8_0: ("q8_0", 34), Q8_1: ("q8_1", 36)}[kind]
        out = np.zeros((len(values), values.shape[1] // BLOCK * size), np.uint8)
        for row, quantized in zip(values, out, strict=True):
            getattr(ggml, f"quantize_row_{name}")(pointer(row), pointer(quantized), ctypes.c_int64(len(row)))
        return out

    return columns_of


@pytest.mark.kernels
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    ("rows", "columns", "blocks"), [(16, 1, 8), (35, 7, 24), (5, 40, 1), (64, 3, 72), (33, 600, 3)]
)
def test_products_have_ggmls_bits(ggml, quantize, columns_of, multiply, name, rows, columns, blocks):
    left = quantize(TYPES[name][0], random_rows(rows, blocks * BLOCK, 1))
    right = columns_of(TYPES[name][1], random_rows(columns, blocks * BLOCK, 2))
    suffix = "q8_0" if TYPES[name][1] == Q8_0 else "q8_1"
    dot, one = getattr(ggml, f"ggml_vec_dot_{name}_{suffix}"), np.zeros(1, np.float32)
    none, length = ctypes.c_size_t(0), ctypes.c_int(blocks * BLOCK)
    expected = np.zeros((columns, rows), np.float32)
    for j, i in np.ndindex(columns, rows):
        dot(length, pointer(one), none, pointer(left[i]), none, pointer(right[j]), none, 1)
        expected[j, i] = one[0]
    for threads in (1, 3):
        product = multiply(TYPES[name], left, right, blocks, threads)
        assert np.array_equal(product.view(np.int32), expected.view(np.int32))


@pytest.mark.kernels
def test_extreme_values_do_not_overflow(quantize, multiply):
    left, right = np.full((17, 64), -1.0, np.float32), np.ones((3, 64), np.float32)
    left[1] = 1
    product = multiply((Q8_0, Q8_0), quantize(Q8_0, left), quantize(Q8_0, right), 2)
    assert np.allclose(product, [[64 if row == 1 else -64 for row in range(17)]] * 3, rtol=1e-3)
