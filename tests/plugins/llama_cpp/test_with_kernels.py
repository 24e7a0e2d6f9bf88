"""Models run on the kernels, and write to the bit what they write without."""

import asyncio
import subprocess
import sys
from dataclasses import replace

import gguf
import llama_cpp.llama_cpp as lib
import numpy as np
import pytest
from tools.architectures import make
from tools.make_bench_models import Llama, llama

from puna.backend import Sampling, SequenceRequest, TextDelta
from puna_ggml_kernels import loader
from puna_llama_cpp.binding import weights
from puna_llama_cpp.binding.batch import Batch
from puna_llama_cpp.binding.context import AbortedError
from puna_llama_cpp.generation.draft_model import DraftModel
from puna_llama_cpp.generation.draft_policy import Draft, StepCosts
from puna_llama_cpp.generation.speculation import Speculator

WIDE = Llama(layers=2, hidden=256, feed_forward=512, heads=4, kv_heads=2, vocabulary=1024, context=2048)
"""The rows are whole blocks of K types."""
EXPERTS = replace(WIDE, experts=4)


@pytest.fixture(scope="module")
def library():
    library = loader.install()
    assert library
    loader.set_order(tiled_from=loader.TILED_PREFILL_ROWS)
    return library


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Makes a model in a type; with experts, if its name has `-experts` behind it."""
    folder = tmp_path_factory.mktemp("models")
    llama(folder / "wide.gguf", WIDE, gguf.GGMLQuantizationType.F32, 0)
    llama(folder / "wide-experts.gguf", EXPERTS, gguf.GGMLQuantizationType.F32, 0)

    def quantized(name):
        path = folder / f"{name}.gguf"
        if name == "F32":
            return str(folder / "wide.gguf")
        if not path.exists():
            kind, dash, experts = name.partition("-")
            source = str(folder / f"wide{dash}{experts}.gguf")
            command = [sys.executable, "-m", "puna_llama_cpp.quantize", source, str(path), kind]
            subprocess.run(command, check=True, capture_output=True)
        return str(path)

    return quantized


@pytest.fixture
def with_and_without(library, load, quantized, monkeypatch):
    """Has a model write with the kernels and as ggml would; returns tokens with log-probabilities, and calls."""

    async def written(on, kind, lengths, options):
        library.puna_enable(on)
        try:
            with monkeypatch.context() as patch:
                if not on:
                    patch.setattr(weights, "should_repack", lambda path: True)
                model = await load(path=quantized(kind), backend_options={"exact_kernels": True}, **options)
            before = library.puna_matmul_calls(), library.puna_attention_calls()
            said = []
            for seed, length in enumerate(lengths):
                prompt = [5 + i * 7 % 250 for i in range(seed, seed + length)]
                sampling = Sampling(temperature=0.8, seed=seed)
                request = SequenceRequest(prompt=prompt, sampling=sampling, max_tokens=20, top_logprobs=3)
                said += [event.logprobs async for event in model.generate(request) if isinstance(event, TextDelta)]
            return said, library.puna_matmul_calls() - before[0], library.puna_attention_calls() - before[1]
        finally:
            library.puna_enable(True)

    async def with_and_without(kind, *lengths, **options):
        return await written(True, kind, lengths, options), await written(False, kind, lengths, options)

    return with_and_without


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("kind", "threads"),
    [
        *((kind, threads) for kind in ("Q8_0", "Q5_0", "Q4_0", "Q4_K_M", "Q5_K_S", "Q6_K") for threads in (1, 2)),
        *((kind, 1) for kind in ("Q5_1", "Q4_1", "IQ4_NL", "Q2_K", "Q3_K_M", "IQ4_XS")),
    ],
)
async def test_models_run_on_them_and_write_to_the_bit_what_they_write_without(with_and_without, kind, threads):
    # one column, few, groups of four and what is left over; many rows of queries, and more positions than one takes
    (with_them, *calls), (without, *none) = await with_and_without(kind, 1, 3, 6, 7, 8, 21, 150, 700, threads=threads)
    # Single columns of some types are left to ggml, which leaves the evaluation of the prompts.
    assert min(calls) > 20
    assert none == [0, 0]
    assert len(with_them) > 100
    assert with_them == without


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("kind", "threads", "options"),
    [
        ("Q8_0", 2, {}),
        ("Q4_K_M", 3, {}),  # shares of different sizes
        ("Q5_K_S", 2, {"kv_cache_type": "q8_0", "flash_attention": "on"}),
        ("Q4_0", 2, {"flash_attention": "off"}),
        ("IQ4_NL", 2, {}),
    ],
)
async def test_the_graphs_of_single_tokens_are_planned_and_give_the_same_bits(
    with_and_without, library, kind, threads, options
):
    before = library.puna_planned_graphs()
    (with_them, *_), (without, *_) = await with_and_without(kind, 5, 40, threads=threads, **options)
    # All tokens but the first of each answer, and none of the run without the kernels.
    assert 30 <= library.puna_planned_graphs() - before <= 40
    assert with_them == without


@pytest.mark.kernels
@pytest.mark.parametrize(("kind", "threads"), [("Q8_0", 2), ("Q4_K_M", 3)])
def test_a_single_token_is_given_up_at_any_barrier_and_evaluated_again(library, parts, quantized, kind, threads):
    context = parts(path=quantized(kind), threads=threads).context
    before = library.puna_planned_graphs()
    most = given_up_at_any_barrier(context, [8])
    assert library.puna_planned_graphs() - before > most
    # Each of the two layers has five barriers.
    assert most > 10


@pytest.mark.kernels
@pytest.mark.parametrize("threads", [2, 3])
def test_a_prompt_is_given_up_at_any_barrier_and_evaluated_again(library, parts, quantized, threads):
    context = parts(path=quantized("Q8_0"), threads=threads).context
    before = library.puna_sleeping_graphs()
    most = given_up_at_any_barrier(context, list(range(10, 58)))
    assert library.puna_sleeping_graphs() - before > most
    assert most > 20


def given_up_at_any_barrier(context, tokens):
    """Abort the evaluation of tokens after one node, after two and so on; return the number of aborts."""
    asked, most = 0, 0

    @lib.ggml_abort_callback
    def stops(_):
        nonlocal asked
        asked += 1
        return asked > most

    def evaluate(position, tokens):
        batch = Batch(context.batch_size)
        row = batch.add(0, position, tokens, output=True)
        context.decode(batch)
        return context.logits(row).copy()

    evaluate(0, [5, 6, 7])
    expected = evaluate(3, tokens)
    finished = False
    lib.llama_set_abort_callback(context.pointer, stops, None)
    while not finished:
        context.truncate(0, 3)
        asked = 0
        try:
            assert np.array_equal(evaluate(3, tokens), expected)
            finished = True
        except AbortedError:
            most += 1
    return most


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("kind", "threads"), [("Q4_1", 1), ("MXFP4_MOE", 1), ("Q4_K_M", 2), ("Q2_K", 1), ("IQ4_XS", 1)]
)
async def test_mixtures_of_experts_run_on_them_with_the_same_bits(with_and_without, library, kind, threads):
    calls = library.puna_expert_calls
    before = calls()
    (with_them, *_), (without, *none) = await with_and_without(f"{kind}-experts", 1, 3, 8, 150, threads=threads)
    assert calls() - before > 20
    assert none == [0, 0]
    assert len(with_them) > 50
    assert with_them == without


@pytest.mark.kernels
@pytest.mark.parametrize("cache", ["f32", "q8_0"])
async def test_other_caches_are_left_to_ggml(with_and_without, cache):
    (with_them, *_), (without, *_) = await with_and_without("Q8_0", 20, 150, kv_cache_type=cache, flash_attention="on")
    assert with_them == without


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Q8_0", {"threads": 2}),
        *(
            (kind, {})
            for kind in (
                "Q8_0",
                "Q4_0",
                "Q4_K_M",
                "Q5_K_S",
                "Q6_K",
                "Q4_1",
                "F16",
                "F32",
                "Q2_K",
                "Q3_K_S",
                "IQ4_NL",
                "IQ4_XS",
                "Q5_1",
                "BF16",
            )
        ),
        ("Q8_0", {"kv_cache_type": "f32"}),
        ("Q8_0", {"kv_cache_type": "q8_0", "flash_attention": "on"}),
    ],
    ids=str,
)
async def test_drafted_tokens_are_to_the_bit_those_without_drafts(load, quantized, kind, options, monkeypatch):
    """The answer passes 512 tokens of context, where ggml begins to share the positions of one row among threads."""
    known, drafted = [], []

    def none(speculator, index, salt, decoding, limit, forced):
        known[:] = index.tokens
        return Draft([], [])

    def some_right(speculator, index, salt, decoding, limit, forced):
        count = len(index.tokens)
        right = known[count : count + count % 32]
        drafted.append([*right, *[4] * 31][: min(limit, 31)])
        return Draft(drafted[-1], [0] * len(drafted[-1]))

    prompt = [9 + step * 7 % 200 for step in range(480)]
    written = []
    for draft in (none, some_right):
        monkeypatch.setattr(Speculator, "draft", draft)
        model = await load(path=quantized(kind), **options)
        request = SequenceRequest(prompt=prompt, sampling=Sampling(temperature=0), max_tokens=80, top_logprobs=2)
        written.append([event.logprobs async for event in model.generate(request) if isinstance(event, TextDelta)])
    assert len(drafted) > 5
    assert written[0] == written[1]


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("kind", "drafting", "temperature"),
    [
        ("Q8_0", "Q2_K", 0),
        ("Q4_K_M", "Q4_0", 0.4),
        ("Q4_1", "Q8_0", 0),
        ("F16", "Q8_0", 0.4),
        ("BF16", "Q3_K_S", 0),
        ("IQ4_XS", "F32", 0.4),
    ],
)
async def test_a_draft_model_changes_no_bit(load, quantized, kind, drafting, temperature, monkeypatch):
    """Another form of the model drafts, so that many tokens are accepted and, at a temperature, many are not."""
    monkeypatch.setattr(StepCosts, "step_seconds", lambda *_: 1.0)
    monkeypatch.setattr(StepCosts, "row_share", lambda *_: 0.02)
    monkeypatch.setattr(DraftModel, "_pass_share", lambda *_: 0.02)
    written, ends = [], []
    for options in ({"draft_path": quantized(drafting), "draft_tokens": 6}, {}):
        model = await load(path=quantized(kind), parallel=1, **options)
        sampling = Sampling(temperature=temperature, seed=3)
        prompt = [9 + step * 7 % 200 for step in range(480)]
        request = SequenceRequest(prompt=prompt, sampling=sampling, max_tokens=80, top_logprobs=2)
        events = [event async for event in model.generate(request)]
        written.append([event.logprobs for event in events if isinstance(event, TextDelta)])
        ends.append(events[-1])
    assert written[0] == written[1]
    assert ends[0].accepted_draft_tokens > 5


@pytest.mark.kernels
async def test_positions_are_read_before_their_memory_is_used_again(library, load, tmp_path):
    """ggml gives the memory of the positions to the values of the last layer, which follow without a barrier."""
    make.make(tmp_path / "model.gguf", "cohere2moe", experts=True)
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype = lib.LLAMA_FTYPE_MOSTLY_Q8_0
    assert lib.llama_model_quantize(bytes(tmp_path / "model.gguf"), bytes(tmp_path / "q8_0.gguf"), parameters) == 0
    written = []
    for threads in (1, 2, 2):
        model = await load(path=str(tmp_path / "q8_0.gguf"), parallel=1, threads=threads)
        request = SequenceRequest(prompt=[9, 5], sampling=Sampling(temperature=0), max_tokens=100, top_logprobs=2)
        events = [event async for event in model.generate(request)]
        written.append([event.logprobs for event in events if isinstance(event, TextDelta)])
    assert written[0] == written[1] == written[2]


@pytest.mark.kernels
async def test_ends_of_prompts_evaluated_together_have_the_bits_of_each_prompt_alone(load, quantized):
    common = [9 + step * 7 % 200 for step in range(600)]
    prompts = [
        [*common, *(11 + n + step * 3 % 100 for step in range(length))] for n, length in enumerate((9, 12, 21, 40))
    ]

    async def first(model, prompt):
        request = SequenceRequest(prompt=prompt, sampling=Sampling(temperature=0), max_tokens=1, top_logprobs=2)
        return [event.logprobs async for event in model.generate(request) if isinstance(event, TextDelta)]

    alone = [await first(await load(path=quantized("Q8_0"), parallel=1), prompt) for prompt in prompts]
    model = await load(path=quantized("Q8_0"), parallel=4)
    assert await asyncio.gather(*(first(model, prompt) for prompt in prompts)) == alone


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("kind", "threads"),
    [
        ("Q8_0", 1),
        *((kind, 2) for kind in ("Q8_0", "Q4_K_M", "Q5_K_S", "Q6_K", "IQ4_XS", "F16", "BF16", "Q4_K_M-experts")),
    ],
)
async def test_no_bit_of_a_sequence_depends_on_its_company(load, quantized, kind, threads):
    def words(seed, count):
        return [9 + (seed * 31 + step * (7 + seed % 5) + step * step) % 200 for step in range(count)]

    async def write(model, prompt, salt, tokens=8):
        sampling = Sampling(temperature=0.8, seed=3)
        asked = SequenceRequest(prompt=prompt, sampling=sampling, max_tokens=tokens, top_logprobs=2, cache_salt=salt)
        return [event.logprobs async for event in model.generate(asked) if isinstance(event, TextDelta)]

    async def stream(model, seed, begun):
        endless = Sampling(temperature=0.8, seed=seed, logit_bias=dict.fromkeys(range(7), -100.0))
        asked = SequenceRequest(prompt=words(seed, 20), sampling=endless, max_tokens=1500, cache_salt=f"stream {seed}")
        async for event in model.generate(asked):
            if isinstance(event, TextDelta):
                begun.set()

    # Few tokens and many behind a cached beginning, fewer than a tile has, and a part that is left of a full batch.
    sizes = [(0, 9), (0, 70), (300, 3), (300, 50), (700, 12), (700, 70), (0, 515)]
    prompts = {(cached, new): words(cached, cached) + words(new, new) for cached, new in sizes}
    expected = {
        size: await write(await load(path=quantized(kind), threads=threads, parallel=1), prompt, "")
        for size, prompt in prompts.items()
    }
    model = await load(path=quantized(kind), threads=threads, parallel=8)

    async def together(company):
        for cached, new in sizes:
            await write(model, words(cached, cached) or [9], f"{company} {cached} {new}", tokens=1)
        found = await asyncio.gather(*(write(model, prompts[size], f"{company} {size[0]} {size[1]}") for size in sizes))
        assert dict(zip(sizes, found, strict=True)) == expected

    await together("no stream")
    begun = [asyncio.Event() for _ in range(3)]
    streams = [asyncio.create_task(stream(model, seed, event)) for seed, event in enumerate(begun)]
    await asyncio.gather(*(event.wait() for event in begun))
    for size, prompt in prompts.items():
        assert await write(model, prompt, str(size)) == expected[size]
    await together("streams")
    assert not any(each.done() for each in streams)
    for each in streams:
        each.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
