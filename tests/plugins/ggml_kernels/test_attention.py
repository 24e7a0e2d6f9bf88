"""Attention against ggml's own, bit by bit. test_with_kernels.py compares it in models."""

import ctypes

import numpy as np
import pytest

from puna_ggml_kernels import loader


@pytest.fixture
def attend(ggml, compute):
    """Return a function that computes attention, on the decode path below 64 rows."""
    loader.set_order(tiled_from=loader.TILED_PREFILL_ROWS)

    def attend(q, k, v, mask, threads, sinks=()):
        factors = [ctypes.c_float(factor) for factor in (q.shape[-1] ** -0.5, 0, 0)]
        arrays = [np.ascontiguousarray(each) for each in (q, k, v, mask, *sinks)]

        def attention(memory, *tensors):
            node = ggml.ggml_flash_attn_ext(memory, *tensors[:4], *factors)
            for each in tensors[4:]:
                ggml.ggml_flash_attn_ext_add_sinks(ctypes.c_void_p(node), each)
            return node

        return compute(arrays, attention, (q.size // q.shape[-1], v.shape[-1]), threads)

    return attend


@pytest.fixture
def tiled(library, attend):
    """Return a function that computes some rows of a prompt of which the rest is cached."""
    library.puna_enable(True)
    loader.set_order(tiled_from=1)
    yield attend
    loader.set_order(tiled_from=loader.TILED_PREFILL_ROWS)


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


def causal(rows, keys, kind, random):
    """Return the mask of the last tokens of a prompt: each one sees one position more than the one before."""
    token, position = np.arange(keys - rows, keys)[:, None], np.arange(keys)
    hidden = position > token
    if kind == "window":
        hidden |= position <= token - 100
    if kind == "holes":  # as positions of other sequences are, and rows that see nothing of a tile
        hidden |= (random.random((rows, keys)) < 0.3) | ((position // 64 + token) % 3 == 0)
    return np.where(hidden, -np.inf, random.standard_normal(keys) if kind == "biased" else 0)


@pytest.mark.kernels
@pytest.mark.parametrize("kind", ["causal", "window", "holes", "biased", "sinks"])
@pytest.mark.parametrize(
    ("groups", "heads", "wide", "value", "keys", "threads"),
    [
        (3, 3, 64, 64, 512, 1),
        (1, 8, 64, 64, 200, 2),  # a part of a tile at the end
        (2, 1, 128, 128, 256, 2),
        (1, 4, 256, 256, 320, 1),
        (2, 2, 80, 80, 192, 1),
        (1, 5, 96, 48, 192, 2),
        (1, 2, 576, 512, 128, 1),
    ],
)
def test_few_rows_have_the_bits_of_a_whole_prompt(
    library, attend, tiled, kind, groups, heads, wide, value, keys, threads
):
    random = np.random.default_rng(8)
    rows = loader.TILED_PREFILL_ROWS
    q = random.standard_normal((1, groups * heads, rows, wide), np.float32)
    k = random.standard_normal((1, groups, keys, wide)).astype(np.float16)
    v = random.standard_normal((1, groups, keys, value)).astype(np.float16)
    mask = causal(rows, keys, kind, random)[None, None].astype(np.float16)
    sinks = [random.standard_normal((1, 1, 1, groups * heads), np.float32)] if kind == "sinks" else []
    library.puna_enable(False)
    whole = attend(q, k, v, mask, threads, sinks).reshape(rows, groups * heads, value)
    library.puna_enable(True)
    first = 0
    for few in range(1, 12):  # the last ones are what is left
        part = slice(first, min(first + few, rows))
        calls = library.puna_attention_calls()
        found = tiled(q[:, :, part], k, v, mask[:, :, part], threads, sinks).reshape(-1, groups * heads, value)
        assert library.puna_attention_calls() == calls + 1
        assert np.array_equal(found.view(np.int32), whole[part].view(np.int32))
        first += few
    assert first >= rows
    assert np.isfinite(whole).all()


@pytest.fixture
def attend_by_token(ggml, library, compute):
    """Return a function that computes attention whose order follows from the token, over a view of a KV cache."""
    ggml.ggml_view_4d.restype = ctypes.c_void_p
    loader.set_exact(exact=False)

    def view(memory, tensor, array):
        sizes, strides = reversed(array.shape), reversed(array.strides[:-1])
        numbers = (ctypes.c_int64(each) for each in sizes), (ctypes.c_size_t(each) for each in strides)
        return ctypes.c_void_p(ggml.ggml_view_4d(memory, tensor, *numbers[0], *numbers[1], ctypes.c_size_t(0)))

    def attend(q, k, v, mask, threads=1, prompts=()):
        loader.set_order(tiled_from=loader.TILED_PREFILL_ROWS, prompts=prompts)
        arrays = [np.ascontiguousarray(each) for each in (q, k, v, mask)]
        factors = [ctypes.c_float(factor) for factor in (q.shape[-1] ** -0.5, 0, 0)]

        def attention(memory, query, keys, *others):
            return ggml.ggml_flash_attn_ext(memory, query, view(memory, keys, arrays[1]), *others, *factors)

        found = compute(arrays, attention, (q.size // q.shape[-1], v.shape[-1]), threads)
        return found.reshape(q.shape[0], q.shape[2], q.shape[1], -1)

    yield attend
    loader.set_order(tiled_from=loader.TILED_PREFILL_ROWS)
    loader.set_exact(exact=True)


def exact_attention(q, k, v, mask):
    """Return attention in double precision, of the values that ggml takes."""
    heads = q.shape[1] // k.shape[1]
    k, v = (np.repeat(each.astype(np.float64), heads, axis=1) for each in (k, v))
    scores = q.astype(np.float64) @ k.swapaxes(-1, -2) * np.float64(np.float32(q.shape[-1] ** -0.5)) + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return ((weights / weights.sum(-1, keepdims=True)) @ v).swapaxes(1, 2)


@pytest.mark.kernels
@pytest.mark.parametrize("kind", ["causal", "window", "holes"])
@pytest.mark.parametrize(
    ("groups", "heads", "wide", "keys"), [(3, 3, 64, 1024), (1, 8, 128, 512), (4, 1, 80, 768), (1, 2, 256, 700)]
)
def test_a_sampled_token_has_its_bits_whatever_is_beside_it(
    library, attend, attend_by_token, kind, groups, heads, wide, keys
):
    random = np.random.default_rng(8)
    streams, rows = 3, 4
    q = random.standard_normal((streams, groups * heads, rows, wide), np.float32)
    k, v = random.standard_normal((2, streams, groups, keys, wide)).astype(np.float16)
    mask = np.stack([causal(rows, keys, kind, random) for _ in range(streams)])[:, None].astype(np.float16)
    together = attend_by_token(q, k, v, mask, threads=2)
    beside_a_prompt = attend_by_token(q, k, v, mask, prompts=[1])
    for s in range(streams):
        own = slice(s, s + 1)
        # A window within one share has no other order.
        assert np.array_equal(beside_a_prompt[s], together[s]) == (s != 1 or kind == "window")
        for r in range(rows):
            row = slice(r, r + 1)
            for threads in (1, 2, 3):
                alone = attend_by_token(q[own, :, row], k[own], v[own], mask[own, :, row], threads)
                assert np.array_equal(alone.view(np.int32)[0, 0], together.view(np.int32)[s, r])
    library.puna_enable(False)
    ggmls = attend(q, k, v, mask, 1).reshape(together.shape)
    library.puna_enable(True)
    exact = exact_attention(q, k, v, mask.astype(np.float64))
    assert np.abs(together - exact).mean() < np.abs(ggmls - exact).mean() / 10
