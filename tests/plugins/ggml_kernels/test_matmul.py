"""Products of native/matmul.c against ggml's own dot products, bit by bit."""

import ctypes

import numpy as np
import pytest
from tests.plugins.ggml_kernels.arrays import pointer, random_rows

from puna_ggml_kernels import loader

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


@pytest.fixture
def one_sum(library):
    """Has products keep one sum for each row, where ggml has eight, for the length of a test."""
    loader.set_exact(exact=False)
    yield
    loader.set_exact(exact=True)


@pytest.mark.kernels
@pytest.mark.usefixtures("one_sum")
@pytest.mark.parametrize("name", TYPES)
def test_a_column_has_the_same_bits_among_any_number_of_columns(quantize, columns_of, multiply, name):
    rows, blocks = 37, 70  # more blocks than a strip of matmul_many_columns.c
    left = quantize(TYPES[name][0], random_rows(rows, blocks * BLOCK, 1))
    right = columns_of(TYPES[name][1], random_rows(600, blocks * BLOCK, 2))
    alone = np.concatenate([multiply(TYPES[name], left, column[None], blocks) for column in right[:29]])
    for count in (2, 3, 4, 5, 7, 8, 9, 23, 24, 29, 600):
        for threads in (1, 3):
            product = multiply(TYPES[name], left, right[:count], blocks, threads)[:29]
            assert np.array_equal(product.view(np.int32), alone[:count].view(np.int32))


def exact_product(name, left, right, blocks):
    """Multiply matrices of Q8_0 or Q4_1 in double precision."""

    def halves(matrix, at):
        return np.ascontiguousarray(matrix[..., at : at + 2]).view(np.float16).astype(np.float64)[..., 0]

    a, b = (matrix.reshape(len(matrix), blocks, -1) for matrix in (left, right))
    values = np.concatenate([a[..., 4:] & 15, a[..., 4:] >> 4], -1) if name == "q4_1" else a[..., 2:].view(np.int8)
    columns = b[..., -BLOCK:].view(np.int8)
    dots = np.einsum("mkv,nkv->nmk", values.astype(np.float64), columns.astype(np.float64))
    total = np.einsum("nmk,mk,nk->nm", dots, halves(a, 0), halves(b, 0))
    return total + (halves(b, 2) @ halves(a, 2).T if name == "q4_1" else 0)


@pytest.mark.kernels
@pytest.mark.parametrize("name", ["q8_0", "q4_1"])
@pytest.mark.parametrize("blocks", [18, 64, 256])
def test_one_sum_is_no_further_from_exact_arithmetic_than_ggmls_eight(
    library, quantize, columns_of, multiply, name, blocks
):
    left = quantize(TYPES[name][0], random_rows(96, blocks * BLOCK, 3))
    right = columns_of(TYPES[name][1], random_rows(96, blocks * BLOCK, 4))
    exact, errors = exact_product(name, left, right, blocks), []
    for ggmls in (True, False):
        loader.set_exact(exact=ggmls)
        errors.append(np.sqrt(np.mean((multiply(TYPES[name], left, right, blocks) - exact) ** 2)))
    loader.set_exact(exact=True)
    # Both err by chance, in the last bits: the sample of 9,216 elements tells them apart by 2 %.
    assert errors[1] < 1.05 * errors[0]
    assert errors[0] < 1e-6 * np.sqrt(np.mean(exact**2))


@pytest.fixture
def multiply_f16(ggml, library, compute):
    """Return a function that has ggml multiply rows of 16-bit floats with columns, and says how."""
    ggml.ggml_mul_mat.restype = ctypes.c_void_p

    def multiply_f16(rows, columns, length, threads, on=True):
        arrays = [random_rows(rows, length, 1).astype(np.float16), random_rows(columns, length, 2)]
        arrays = [array.reshape(1, 1, *array.shape) for array in arrays]
        before = library.puna_f16_calls()
        library.puna_enable(on)
        try:
            product = compute(arrays, ggml.ggml_mul_mat, (columns, rows), threads)
        finally:
            library.puna_enable(True)
        return product.view(np.int32), library.puna_f16_calls() - before

    return multiply_f16


@pytest.mark.kernels
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(64, 2, 384), (36, 7, 32), (4, 13, 16), (100, 40, 96), (32, 600, 1536)])
def test_products_of_16_bit_floats_have_ggmls_bits(multiply_f16, shape, threads):
    product, calls = multiply_f16(*shape, threads)
    expected, none = multiply_f16(*shape, threads, on=False)
    assert (calls, none) == (1, 0)
    assert np.array_equal(product, expected)


@pytest.mark.kernels
@pytest.mark.parametrize("shape", [(6, 5, 32), (8, 5, 40), (8, 1, 64)])
def test_other_products_of_16_bit_floats_are_left_to_ggml(multiply_f16, shape):
    product, calls = multiply_f16(*shape, 1)
    assert calls == 0
    assert np.array_equal(product, multiply_f16(*shape, 1, on=False)[0])
