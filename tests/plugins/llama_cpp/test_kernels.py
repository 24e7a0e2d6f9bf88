"""The kernels of native/ against plain arithmetic, and that they are what a model runs on."""

import asyncio
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from llama_cpp._ggml import libggml
from tools.make_bench_models import Llama, llama

from puna.backend import Piece, Sampling, SequenceRequest
from puna_llama_cpp import kernels
from puna_llama_cpp.binding import weights
from puna_llama_cpp.generation.prompt_lookup import Lookup

F32, Q8_0, BLOCK = 0, 8, 32
TYPES = {"q5_0": 6, "q8_0": 8}
FLOATS = {np.dtype(np.float32): F32, np.dtype(np.float16): 1}
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma"}


def able():
    """Whether the processor has what the kernels need, by the kernel's account."""
    return set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()) >= NEEDED


needs_processor = pytest.mark.skipif(
    not (sys.platform == "linux" and able()) and os.environ.get("CI") != "true",  # where nothing is skipped
    reason="ggml's own functions are all there is on this processor",
)


class Memory(ctypes.Structure):
    """What tensors are made in, struct ggml_init_params."""

    _fields_ = [("size", ctypes.c_size_t), ("at", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


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
    kernels.arrange(tiles_from=kernels.MANY_ROWS, alone=False)
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


def activations(count):
    """Random rows, and those that a rule of its own decides: which is the largest, ties, what overflows."""
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


@needs_processor
@pytest.mark.parametrize(("name", "kind", "block", "size"), [("q8_0", Q8_0, BLOCK, 34), ("q8_K", 15, 256, 292)])
def test_activations_are_quantized_by_them_with_the_bits_of_ggmls_own(ggml, library, name, kind, block, size):
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


@pytest.fixture
def compute(ggml):
    """Has ggml compute what a function makes of tensors, from arrays to an array of floats of a shape."""
    for name in ("init", "new_tensor_4d", "get_data", "rms_norm", "mul", "flash_attn_ext", "new_graph"):
        getattr(ggml, f"ggml_{name}").restype = ctypes.c_void_p

    def compute(arrays, make, shape, threads):
        size = 4 * int(np.prod(shape))
        memory = ctypes.c_void_p(
            ggml.ggml_init(Memory(2 * size + sum(x.nbytes for x in arrays) + (8 << 20), None, False))
        )
        tensors = []
        for array in arrays:
            sizes = map(ctypes.c_int64, reversed(array.shape))
            tensors.append(ctypes.c_void_p(ggml.ggml_new_tensor_4d(memory, FLOATS[array.dtype], *sizes)))
            ctypes.memmove(ctypes.c_void_p(ggml.ggml_get_data(tensors[-1])), pointer(array), array.nbytes)
        out = ctypes.c_void_p(make(memory, *tensors))
        graph = ctypes.c_void_p(ggml.ggml_new_graph(memory))
        ggml.ggml_build_forward_expand(graph, out)
        ggml.ggml_graph_compute_with_ctx(memory, graph, threads)
        result = np.frombuffer(ctypes.string_at(ggml.ggml_get_data(out), size), np.float32).copy()
        ggml.ggml_free(memory)
        return result.reshape(shape)

    return compute


@pytest.fixture
def normalize(ggml, compute):
    """Has ggml compute rows divided by the root of their mean square, times weights."""

    def normalize(values, weights, threads):
        def norm(memory, rows, factors):
            return ggml.ggml_mul(
                memory, ctypes.c_void_p(ggml.ggml_rms_norm(memory, rows, ctypes.c_float(1e-5))), factors
            )

        return compute((values, weights), norm, values.shape, threads)

    return normalize


@needs_processor
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
def test_rows_are_normalized_with_the_bits_of_ggmls_own(library, normalize, shape, threads, of_each, calls):
    random = np.random.default_rng(6)
    values, weights = (random.standard_normal(size, np.float32) for size in (shape, (1, 1, of_each, shape[-1])))
    rows = values.reshape(-1, shape[-1])
    rows *= np.float32(10.0) ** random.integers(-30, 20, (len(rows), 1))
    rows[0] = 2.0**-14  # each square too small for a sum that has the large ones in it, but not all together
    rows[0, :3] = 2**13, 2**11, 2
    rows[len(rows) // 2 :: 7, 1], rows[len(rows) // 3 :: 8], rows[6::9, -1] = np.inf, 0, np.nan
    results = []
    for on in (True, False):
        library.puna_switch(on)
        before = library.puna_norm_calls()
        results.append(normalize(values, weights, threads))
        assert library.puna_norm_calls() - before == (calls if on else 0)
    library.puna_switch(True)
    ours, own = results
    assert np.array_equal(np.isnan(ours), np.isnan(own))
    assert np.array_equal(np.nan_to_num(ours).view(np.int32), np.nan_to_num(own).view(np.int32))


WIDE = Llama(layers=2, hidden=256, feed_forward=512, heads=4, kv_heads=2, vocabulary=1024, context=2048)
"""The rows are whole blocks of K types."""


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Makes a model in a type."""
    folder = tmp_path_factory.mktemp("models")
    llama(folder / "wide.gguf", WIDE, gguf.GGMLQuantizationType.F32, 0)

    def quantized(kind):
        path = folder / f"{kind}.gguf"
        if not path.exists():
            command = [sys.executable, "-m", "puna_llama_cpp.quantize", str(folder / "wide.gguf"), str(path), kind]
            subprocess.run(command, check=True, capture_output=True)
        return str(path)

    return quantized


@pytest.fixture
def with_and_without(library, load, quantized, monkeypatch):
    """Has a model write with the kernels and as ggml would; returns tokens with log-probabilities, and calls."""

    async def written(on, kind, lengths, options):
        library.puna_switch(on)
        try:
            with monkeypatch.context() as patch:
                if not on:
                    patch.setattr(weights, "repacking", lambda path: True)
                model = await load(path=quantized(kind), **options)
            before = library.puna_matmul_calls(), library.puna_attention_calls()
            said = []
            for seed, length in enumerate(lengths):
                prompt = [5 + i * 7 % 250 for i in range(seed, seed + length)]
                sampling = Sampling(temperature=0.8, seed=seed)
                request = SequenceRequest(prompt=prompt, sampling=sampling, max_tokens=20, top_logprobs=3)
                said += [event.logprobs async for event in model.generate(request) if isinstance(event, Piece)]
            return said, library.puna_matmul_calls() - before[0], library.puna_attention_calls() - before[1]
        finally:
            library.puna_switch(True)

    async def with_and_without(kind, *lengths, **options):
        return await written(True, kind, lengths, options), await written(False, kind, lengths, options)

    return with_and_without


@needs_processor
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q4_0", "Q4_K_M", "Q5_K_S", "Q6_K"])
async def test_models_run_on_them_and_write_to_the_bit_what_they_write_without(with_and_without, kind, threads):
    # one column, few, groups of four and what is left over; many rows of queries, and more positions than one takes
    (with_them, *calls), (without, *none) = await with_and_without(kind, 1, 3, 6, 7, 8, 21, 150, 700, threads=threads)
    assert min(calls) > 200
    assert none == [0, 0]
    assert len(with_them) > 100
    assert with_them == without


@needs_processor
@pytest.mark.parametrize("cache", ["f32", "q8_0"])
async def test_other_caches_are_left_to_ggml(with_and_without, cache):
    (with_them, *_), (without, *_) = await with_and_without("Q8_0", 20, 150, kv_cache_type=cache, flash_attention="on")
    assert with_them == without


@needs_processor
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K_M", "Q5_K_S", "Q6_K"])
async def test_what_is_guessed_is_written_to_the_bit_as_without_guesses(load, quantized, kind, monkeypatch):
    known, guessed = [], []

    def none(lookup, tokens, most):
        known[:] = tokens
        return []

    def some_right(lookup, tokens, most):
        guessed.append([*known[len(tokens) : len(tokens) + len(tokens) % 8], *[4] * 7][: min(most, 7)])
        return guessed[-1]

    written = []
    for guess in (none, some_right):
        monkeypatch.setattr(Lookup, "guess", guess)
        model = await load(path=quantized(kind))
        request = SequenceRequest(prompt=[9, 8, 7], sampling=Sampling(temperature=0), max_tokens=90, top_logprobs=2)
        written.append([event.logprobs async for event in model.generate(request) if isinstance(event, Piece)])
    assert len(guessed) > 5
    assert written[0] == written[1]


@needs_processor
async def test_ends_of_prompts_evaluated_together_have_the_bits_of_each_prompt_alone(load, quantized):
    common = [9 + step * 7 % 200 for step in range(600)]
    prompts = [
        [*common, *(11 + n + step * 3 % 100 for step in range(length))] for n, length in enumerate((9, 12, 21, 40))
    ]

    async def first(model, prompt):
        request = SequenceRequest(prompt=prompt, sampling=Sampling(temperature=0), max_tokens=1, top_logprobs=2)
        return [event.logprobs async for event in model.generate(request) if isinstance(event, Piece)]

    alone = [await first(await load(path=quantized("Q8_0"), parallel=1), prompt) for prompt in prompts]
    model = await load(path=quantized("Q8_0"), parallel=4)
    assert await asyncio.gather(*(first(model, prompt) for prompt in prompts)) == alone


def test_they_are_on_where_the_processor_has_what_they_need():
    assert (kernels.install() is not None) == able()


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
