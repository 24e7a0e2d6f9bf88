"""Products of native/matmul.c against ggml's own dot products, bit by bit."""

import ctypes

import numpy as np
import pytest
from tests.plugins.ggml_kernels.arrays import pointer, random_rows

from puna_ggml_kernels import loader

F32, F16, Q8_0, Q8_1, Q8_K, BF16 = 0, 1, 8, 9, 15, 30
BLOCK, SUPER_BLOCK = 32, 256
TYPES = {"q4_1": (3, Q8_1), "q5_0": (6, Q8_0), "q5_1": (7, Q8_1), "q8_0": (8, Q8_0)}
"""The numbers of a type of matrix and of the type of the columns that it is multiplied with."""
REPACKED = {"q4_0": (2, Q8_0), "iq4_nl": (20, Q8_0), "mxfp4": (39, Q8_0)}
K_TYPES = {
    name: (kind, Q8_K)
    for name, kind in (("q2_k", 10), ("q3_k", 11), ("q4_k", 12), ("q5_k", 13), ("q6_k", 14), ("iq4_xs", 23))
}
ALL = TYPES | REPACKED | K_TYPES


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
        name = {Q8_0: "q8_0", Q8_1: "q8_1", Q8_K: "q8_K"}[kind]
        out = np.zeros((len(values), ggml.ggml_row_size(kind, ctypes.c_int64(values.shape[1]))), np.uint8)
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
def one_order(library):
    """Has products keep one order of additions, where ggml has several, for the length of a test."""
    loader.set_exact(exact=False)
    yield
    loader.set_exact(exact=True)


@pytest.mark.kernels
@pytest.mark.usefixtures("one_order")
@pytest.mark.parametrize("name", ALL)
def test_a_column_has_the_same_bits_among_any_number_of_columns(quantize, columns_of, multiply, name):
    # More blocks than a strip of matmul_many_columns.c, and no multiple of the rows that ggml would repack.
    rows, length = 37, 9 * SUPER_BLOCK if name in K_TYPES else 70 * BLOCK
    blocks = length // (SUPER_BLOCK if name in K_TYPES else BLOCK)
    left = quantize(ALL[name][0], random_rows(rows, length, 1))
    right = columns_of(ALL[name][1], random_rows(600, length, 2))
    alone = np.concatenate([multiply(ALL[name], left, column[None], blocks) for column in right[:29]])
    for count in (2, 3, 4, 5, 6, 7, 8, 9, 15, 23, 24, 29, 600):
        for threads in (1, 3):
            product = multiply(ALL[name], left, right[:count], blocks, threads)[:29]
            assert np.array_equal(product.view(np.int32), alone[:count].view(np.int32))


def halves(matrix, at):
    """Return the 16-bit floats at an offset of each block."""
    return np.ascontiguousarray(matrix[..., at : at + 2]).view(np.float16).astype(np.float64)[..., 0]


def scaled_values(name, blocks):
    """Return the scales of blocks of a matrix, then their integers, and then the same of what is subtracted."""
    if name == "q8_0":
        return halves(blocks, 0), blocks[..., 2:].view(np.int8), None, None
    if name == "q4_1":
        values = np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], -1)
        return halves(blocks, 0), values, -halves(blocks, 2), np.ones_like(values)
    shape = (*blocks.shape[:2], 2, 4, 32)
    if name == "q6_k":
        low, high = blocks[..., :128].reshape(*shape[:3], 2, 32), blocks[..., 128:192].reshape(*shape[:3], 1, 32)
        low = np.concatenate([low & 15, low >> 4], -2)
        high = high >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
        scales = blocks[..., 192:208].view(np.int8).astype(np.int32).repeat(16, -1)
        values = (low | high << 4).reshape(*blocks.shape[:2], SUPER_BLOCK).astype(np.int32) - 32
        return halves(blocks, 208), values * scales, None, None
    six = blocks[..., 4:16].astype(np.int32)  # of q4_k
    first, last = six[..., :8] & 63, six[..., 8:] & 15 | six[..., :4] >> 6 << 4
    scales = np.concatenate([first[..., :4], last], -1)
    mins = np.concatenate([first[..., 4:], six[..., 8:] >> 4 | six[..., 4:8] >> 6 << 4], -1)
    nibbles = blocks[..., 16:].reshape(*shape[:2], 4, 1, 32)
    values = np.concatenate([nibbles & 15, nibbles >> 4], -2).reshape(*blocks.shape[:2], SUPER_BLOCK)
    return halves(blocks, 0), values * scales.repeat(32, -1), halves(blocks, 2), mins.repeat(32, -1)


def exact_product(name, left, right, blocks):
    """Multiply matrices in double precision."""
    a, b = (matrix.reshape(len(matrix), blocks, -1) for matrix in (left, right))
    if name in K_TYPES:
        scale = np.ascontiguousarray(b[..., :4]).view(np.float32).astype(np.float64)[..., 0]
        columns = b[..., 4 : 4 + SUPER_BLOCK].view(np.int8)
    else:
        scale, columns = halves(b, 0), b[..., -BLOCK:].view(np.int8)
    d, values, dmin, mins = scaled_values(name, a)
    dots = np.einsum("mkv,nkv->nmk", values.astype(np.float64), columns.astype(np.float64), optimize=True)
    total = np.einsum("nmk,mk,nk->nm", dots, d, scale, optimize=True)
    if name == "q4_1":  # whose columns hold their sums
        return total - halves(b, 2) @ dmin.T
    if dmin is not None:
        dots = np.einsum("mkv,nkv->nmk", mins.astype(np.float64), columns.astype(np.float64), optimize=True)
        total -= np.einsum("nmk,mk,nk->nm", dots, dmin, scale, optimize=True)
    return total


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        *((name, blocks) for name in ("q8_0", "q4_1") for blocks in (18, 64, 256)),
        ("q4_k", 8),
        ("q4_k", 32),
        ("q6_k", 8),
    ],
)
def test_one_sum_is_no_further_from_exact_arithmetic_than_ggmls(library, quantize, columns_of, multiply, name, blocks):
    length = blocks * (SUPER_BLOCK if name in K_TYPES else BLOCK)
    left = quantize(ALL[name][0], random_rows(96, length, 3))
    right = columns_of(ALL[name][1], random_rows(96, length, 4))
    exact, errors = exact_product(name, left, right, blocks), []
    for ggmls in (True, False):
        loader.set_exact(exact=ggmls)
        errors.append(np.sqrt(np.mean((multiply(ALL[name], left, right, blocks) - exact) ** 2)))
    loader.set_exact(exact=True)
    # Both err by chance, in the last bits: the sample of 9,216 elements tells them apart by 2 %.
    assert errors[1] < 1.05 * errors[0]
    assert errors[0] < 2e-6 * np.sqrt(np.mean(exact**2))


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


@pytest.mark.kernels
@pytest.mark.usefixtures("one_order")
@pytest.mark.parametrize("kind", [F32, F16, BF16])
@pytest.mark.parametrize(("rows", "length"), [(36, 288), (100, 1600), (4, 256), (8, 272), (6, 512), (8, 264)])
def test_a_column_of_floats_has_the_same_bits_among_others(ggml, compute, kind, rows, length):
    """Some shapes are left to ggml, which multiplies all of their columns alike."""
    ggml.ggml_mul_mat.restype = ggml.ggml_cast.restype = ctypes.c_void_p
    left, right = random_rows(rows, length, 1), random_rows(7, length, 2)

    def multiply(memory, a, b):
        return ggml.ggml_mul_mat(memory, ctypes.c_void_p(ggml.ggml_cast(memory, a, kind)), b)

    def product(columns, threads):
        arrays = [array.reshape(1, 1, *array.shape) for array in (left, columns)]
        return compute(arrays, multiply, (len(columns), rows), threads).view(np.int32)

    for threads in (1, 2):
        alone = np.concatenate([product(column[None], threads) for column in right])
        assert np.array_equal(alone, product(right, threads))
