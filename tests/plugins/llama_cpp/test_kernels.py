"""The kernels of native/ against plain arithmetic, and that they are what a model runs on."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llama_cpp._ggml import libggml

from puna.backend import Piece, Sampling, SequenceRequest
from puna_llama_cpp import kernels

MODELS = Path(__file__).parents[2] / "models"
F32, Q8_0, BLOCK = 0, 8, 32
TYPES = {"q5_0": 6, "q8_0": 8}
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma"}


def able():
    """Whether the processor has what the kernels need, by the kernel's account."""
    return set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()) >= NEEDED


needs_processor = pytest.mark.skipif(
    not (sys.platform == "linux" and able()), reason="ggml's own functions are all there is on this processor"
)


class Parameters(ctypes.Structure):
    """One thread's view of a node, struct ggml_compute_params."""

    _fields_ = [("ith", ctypes.c_int), ("nth", ctypes.c_int), ("wsize", ctypes.c_size_t)]
    _fields_ += [("wdata", ctypes.c_void_p), ("threadpool", ctypes.c_void_p), ("use_ref", ctypes.c_bool)]


@pytest.fixture(scope="module")
def ggml():
    """ggml's library: quantization, and dot products of its own."""
    libggml.ggml_row_size.restype = ctypes.c_size_t
    libggml.ggml_cpu_init()  # its tables of 16-bit floats
    return libggml


@pytest.fixture(scope="module")
def library():
    library = kernels.install()
    assert library
    assert library.puna_switch(True)
    return library


@pytest.fixture
def quantize(ggml):
    """Quantizes rows of floats."""

    def quantize(kind, values):
        rows, length = values.shape
        data = np.zeros((rows, ggml.ggml_row_size(kind, ctypes.c_int64(length))), np.uint8)
        whole = map(ctypes.c_int64, (0, rows, length))
        ggml.ggml_quantize_chunk(kind, pointer(values), pointer(data), *whole, None)
        return data

    return quantize


@pytest.fixture
def multiply(library):
    """Multiplies rows of a type with columns of Q8_0."""

    def multiply(kind, left, right, blocks, threads=1):
        out = np.full((len(right), len(left) + 3), np.nan, np.float32)
        sizes = [ctypes.c_int64(size) for size in (len(left), len(right), blocks)]
        a, b, c = (
            (pointer(array), ctypes.c_int64(stride))
            for array, stride in ((left, blocks), (right, blocks), (out, len(left) + 3))
        )
        for thread in range(threads):
            parameters = Parameters(thread, threads, 0, None, None, False)
            done = library.llamafile_sgemm(ctypes.byref(parameters), *sizes, *a, *b, *c, kind, Q8_0, F32)
            assert done & 0xFF
        assert np.isnan(out[:, len(left) :]).all()
        return out[:, : len(left)]

    return multiply


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def random_rows(count, length, seed):
    return np.random.default_rng(seed).standard_normal((count, length), np.float32)


@needs_processor
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    ("rows", "columns", "blocks"), [(16, 1, 8), (35, 7, 24), (5, 40, 1), (64, 3, 72), (33, 600, 3)]
)
def test_products_have_the_bits_of_ggmls_own(ggml, quantize, multiply, name, rows, columns, blocks):
    left = quantize(TYPES[name], random_rows(rows, blocks * BLOCK, 1))
    right = quantize(Q8_0, random_rows(columns, blocks * BLOCK, 2))
    dot, one = getattr(ggml, f"ggml_vec_dot_{name}_q8_0"), np.zeros(1, np.float32)
    none, length = ctypes.c_size_t(0), ctypes.c_int(blocks * BLOCK)
    expected = np.zeros((columns, rows), np.float32)
    for j, i in np.ndindex(columns, rows):
        dot(length, pointer(one), none, pointer(left[i]), none, pointer(right[j]), none, 1)
        expected[j, i] = one[0]
    for threads in (1, 3):
        product = multiply(TYPES[name], left, right, blocks, threads)
        assert np.array_equal(product.view(np.int32), expected.view(np.int32))


@needs_processor
def test_extreme_values_do_not_overflow(quantize, multiply):
    left, right = np.full((17, 64), -1.0, np.float32), np.ones((3, 64), np.float32)
    left[1] = 1
    product = multiply(Q8_0, quantize(Q8_0, left), quantize(Q8_0, right), 2)
    assert np.allclose(product, [[64 if row == 1 else -64 for row in range(17)]] * 3, rtol=1e-3)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """chatter in 8 bits."""
    path = tmp_path_factory.mktemp("models") / "q8.gguf"
    command = [sys.executable, "-m", "puna_llama_cpp.quantize", str(MODELS / "chatter.gguf"), str(path), "Q8_0"]
    subprocess.run(command, check=True, capture_output=True)
    return str(path)


@pytest.fixture
def with_and_without(library, load, quantized):
    """Has a model write with the kernels and without; returns every token with its log-probabilities, and the calls."""

    async def written(on, lengths, options):
        library.puna_switch(on)
        try:
            before = library.puna_matmul_calls(), library.puna_attention_calls()
            model = await load(path=quantized, **options)
            said = []
            for seed, length in enumerate(lengths):
                prompt = [5 + i * 7 % 50 for i in range(seed, seed + length)]
                sampling = Sampling(temperature=0.8, seed=seed)
                request = SequenceRequest(prompt=prompt, sampling=sampling, max_tokens=20, top_logprobs=3)
                said += [event.logprobs async for event in model.generate(request) if isinstance(event, Piece)]
            return said, library.puna_matmul_calls() - before[0], library.puna_attention_calls() - before[1]
        finally:
            library.puna_switch(True)

    async def with_and_without(*lengths, **options):
        return await written(True, lengths, options), await written(False, lengths, options)

    return with_and_without


@needs_processor
@pytest.mark.parametrize("threads", [1, 2])
async def test_models_run_on_them_and_write_to_the_bit_what_they_write_without(with_and_without, threads):
    # few rows of queries, many, and more positions than one thread takes
    (with_them, *calls), (without, *none) = await with_and_without(20, 150, 700, threads=threads)
    assert min(calls) > 60
    assert none == [0, 0]
    assert len(with_them) > 40
    assert with_them == without


@needs_processor
@pytest.mark.parametrize("cache", ["f32", "bf16"])
async def test_other_caches_are_left_to_ggml(with_and_without, cache):
    (with_them, *_), (without, *_) = await with_and_without(20, 150, kv_cache_type=cache, flash_attention="on")
    assert with_them == without


def test_they_are_on_where_the_processor_has_what_they_need():
    library = kernels.install()
    assert (library is not None and library.puna_switch(True)) == able()


def test_the_environment_turns_them_off():
    code = "from puna_llama_cpp import kernels; print(kernels.install())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PUNA_KERNELS": "0"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["None"]


@pytest.mark.parametrize(("versions", "fits"), [(kernels._TRIED, True), (("0.1.0",), False)])
def test_only_versions_of_ggml_that_were_tried_are_touched(monkeypatch, versions, fits):
    monkeypatch.setattr(kernels, "_TRIED", versions)
    assert kernels._fits() == fits
