"""Models with adapters, decoders that embed, models that rank, and a recurrent one."""

import asyncio
from pathlib import Path

import gguf
import numpy as np
import pytest

from puna.backend import InvalidRequestError, ModelSpec, Sampling, SequenceRequest, TextDelta, UnsupportedError
from puna_llama_cpp import LlamaCppBackend
from puna_llama_cpp.kv_store import cache

MODELS = Path(__file__).parents[2] / "models"


async def test_an_adapter_changes_what_is_written(load, write):
    plain = await write(await load("chatter"), "hello")
    adapted = await write(await load("chatter", adapter_paths=(str(MODELS / "chatter-lora.gguf"),)), "hello")
    assert adapted[0]
    assert adapted[0] != plain[0]


async def test_an_adapter_of_another_architecture_is_refused(load):
    with pytest.raises(InvalidRequestError, match="mismatch"):
        await load("embedder", adapter_paths=(str(MODELS / "chatter-lora.gguf"),))


async def test_a_decoder_embeds_texts_together_as_alone(load):
    model = await load("reader")
    assert (model.facts.generates, model.facts.embedding_length) == (False, 32)
    texts = ["hello", "the wind", "hello there", "x" * 200]
    alone = [(await model.embed([text]))[0].values for text in texts]
    for embedding, values in zip(await model.embed(texts), alone, strict=True):
        assert list(embedding.values) == pytest.approx(values, abs=1e-6)
    assert alone[0] != alone[2]


async def test_documents_are_ranked(load):
    model = await load("ranker")
    documents = ["the sky is blue", "dog run", "grass"]
    found = await model.rerank("why is the sky blue?", documents)
    alone = [await model.rerank("why is the sky blue?", [document]) for document in documents]
    assert found.scores == pytest.approx([each.scores[0] for each in alone], abs=1e-5)
    assert found.token_count == sum(each.token_count for each in alone) > 3 * len(["why", "is", "the", "sky", "blue?"])
    assert len(set(found.scores)) == 3
    assert model.facts.embedding_length == 0
    with pytest.raises(UnsupportedError):
        await model.embed(["text"])


async def test_a_memory_that_cannot_be_taken_back_holds_what_it_should(load, write):
    """A recurrent model: beginnings are shared only where a chat goes on; nothing is drafted, padded or moved."""
    model, alone = await load("wanderer", parallel=4), await load("wanderer", parallel=1)
    shared = "the wind and the river and the stone " * 6
    prompts = [shared + word for word in ("sun", "moon", "sun", "star", "night", "lake", "a", "b")]
    expected = [(await write(alone, prompt, max_tokens=30))[0] for prompt in prompts]
    together = await asyncio.gather(*(write(model, prompt, max_tokens=30) for prompt in prompts))
    assert [texts for texts, _ in together] == expected
    assert len({"".join(texts) for texts in expected}) > 3
    first = "".join(expected[0])
    texts, end = await write(model, prompts[0] + first + " and", max_tokens=10)
    assert texts == (await write(await load("wanderer", parallel=1), prompts[0] + first + " and", max_tokens=10))[0]
    assert end.prompt_tokens > len(first) / 8


async def scores(model, prompt, **request):
    """Return the log-probabilities of the tokens that a model writes behind token ids, and how many it had cached."""
    request = {"sampling": Sampling(temperature=0), "max_tokens": 1, "top_logprobs": 1, **request}
    found = []
    async for event in model.generate(SequenceRequest(prompt=tuple(prompt), **request)):
        found += [each.logprob for each in event.logprobs] if isinstance(event, TextDelta) else []
    return found, event.cached_prompt_tokens


WINDOWED = [1, *(3 + 11 * step % 250 for step in range(400))]
"""A prompt of which glimpser's window has passed most."""
NOISE = 0.02
"""By how much log-probabilities differ where a prompt is evaluated in other parts. Without a window's tokens: by 1."""


async def test_a_window_has_all_its_tokens_after_a_restart_of_the_model(load, tmp_path, monkeypatch):
    """llama.cpp stores no more than the window, so that a shorter beginning is evaluated anew."""
    monkeypatch.setattr(cache, "_ASSUMED_BYTES_PER_SECOND", 1e18)
    monkeypatch.setattr(cache, "_CLOSE_SECONDS", 60.0)
    spec = ModelSpec(
        path=str(MODELS / "glimpser.gguf"), threads=1, backend_options={"kv_cache_folder": str(tmp_path / "cache")}
    )

    async def restarted(*prompts):
        model = await LlamaCppBackend().load(spec, lambda done: None)
        try:
            return [await scores(model, prompt) for prompt in prompts]
        finally:
            await model.aclose()

    stored = [*WINDOWED, 9, 9]
    await restarted(stored)
    # The last prompt would cut what the disk has brought back for the one before.
    for *prompts, expected in (
        ([*WINDOWED[:380], 7, 7], [0]),
        (stored, [len(stored) - 1]),
        ([*stored, 7, 7], [*WINDOWED[:390], 7], [len(stored), 0]),
    ):
        found = await restarted(*prompts)
        for prompt, (values, _) in zip(prompts, found, strict=True):
            assert values == pytest.approx((await scores(await load("glimpser"), prompt))[0], abs=NOISE)
        assert [cached for _, cached in found] == expected


async def test_a_window_has_all_its_tokens_after_copies(load):
    model = await load("glimpser", parallel=4)
    # A prompt that shares a part with one that is far ahead, with one that has ended, and with one that moved aside.
    request = SequenceRequest(prompt=tuple(WINDOWED), sampling=Sampling(temperature=0), max_tokens=200)
    running = model.generate(request)
    while not isinstance(await anext(running), TextDelta):
        pass
    for length in (300, 0, 401, 200, 350, 390, 401, 120):
        if not length:
            await running.aclose()
            continue
        prompt = [*WINDOWED[:length], 5, 5]
        alone = await scores(await load("glimpser"), prompt)
        assert (await scores(model, prompt))[0] == pytest.approx(alone[0], abs=NOISE)


async def test_a_window_is_shared_as_far_as_it_reaches(load):
    """Prompts that begin alike at once are evaluated once."""
    model = await load("glimpser", parallel=4)
    ends = [[9] * 40, [8] * 40, [7] * 40, [6] * 40]
    found = await asyncio.gather(*(scores(model, [*WINDOWED, *end]) for end in ends))
    assert sorted(cached for _, cached in found)[1:] == [401] * 3


async def test_a_model_of_windows_alone_ends_at_its_context(load, write, tmp_path):
    """llama.cpp would end the process at a shift: the cache of its other layers, of which there are none, is empty."""
    whole = gguf.GGUFReader(MODELS / "glimpser.gguf")
    writer = gguf.GGUFWriter(tmp_path / "windows.gguf", "cohere2")
    for field in whole.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "cohere2.block_count"):
            kind, of = field.types[0], field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=of)
    writer.add_block_count(3)
    for tensor in whole.tensors:
        if not tensor.name.startswith("blk.3."):
            writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = await load(path=str(tmp_path / "windows.gguf"), context_length=256)
    _, end = await write(model, tuple(WINDOWED[:250]), max_tokens=60, sampling=Sampling(temperature=0, seed=1))
    assert end.reason in ("length", "stop")
    assert end.output_tokens <= 8


def plamo2(path):
    """Write a tiny PLaMo-2 of random weights: an attention and a Mamba."""
    draw = np.random.default_rng(3)
    whole = gguf.GGUFReader(MODELS / "wanderer.gguf")
    writer = gguf.GGUFWriter(path, "plamo2")
    for field in whole.fields.values():
        if field.name.startswith("tokenizer."):
            kind, of = field.types[0], field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=of)
    hidden, inner, state, heads, rank, forward = 32, 64, 8, 2, 64, 48
    writer.add_context_length(2048)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(forward)
    writer.add_head_count([heads, 0])
    writer.add_head_count_kv([heads, 0])
    writer.add_block_count(2)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_group_count(0)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = len(whole.get_field("tokenizer.ggml.tokens").data)
    shapes = {"token_embd.weight": (tokens, hidden), "output.weight": (tokens, hidden), "output_norm.weight": (hidden,)}
    for layer in range(2):
        for name in ("attn_norm.weight", "post_attention_norm", "ffn_norm.weight", "post_ffw_norm"):
            shapes[f"blk.{layer}.{name}"] = (hidden,)
        shapes[f"blk.{layer}.ffn_down.weight"] = (hidden, forward)
        shapes[f"blk.{layer}.ffn_up.weight"] = (2 * forward, hidden)
    shapes |= {
        "blk.0.attn_q_norm.weight": (heads, hidden // heads),
        "blk.0.attn_k_norm.weight": (heads, hidden // heads),
    }
    shapes |= {"blk.0.attn_qkv.weight": (3 * hidden, hidden), "blk.0.attn_output.weight": (hidden, hidden)}
    shapes |= {"blk.1.ssm_dt_norm": (rank,), "blk.1.ssm_b_norm": (state,), "blk.1.ssm_c_norm": (state,)}
    shapes |= {"blk.1.ssm_in.weight": (2 * inner, hidden), "blk.1.ssm_x.weight": (rank + 2 * state, inner)}
    shapes |= {"blk.1.ssm_dt.weight": (heads, rank), "blk.1.ssm_dt.bias": (heads,), "blk.1.ssm_d": (heads,)}
    shapes |= {
        "blk.1.ssm_out.weight": (hidden, inner),
        "blk.1.ssm_conv1d.weight": (inner, 4),
        "blk.1.ssm_a": (heads,),
    }
    for name, shape in shapes.items():
        values = draw.standard_normal(shape, dtype=np.float32) * np.float32(0.4)
        writer.add_tensor(name, -abs(values) if name.endswith("ssm_a") else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


async def test_an_architecture_that_mixes_sequences_up_gets_one_at_a_time(load, write, tmp_path):
    """llama.cpp stores the states of several sequences of PLaMo-2 in each other's place, or ends the process."""
    plamo2(tmp_path / "plamo2.gguf")
    prompts = [f"the wind and {word}" for word in ("the river", "a stone", "light", "we go on and on")]
    model = await load(path=str(tmp_path / "plamo2.gguf"), parallel=4)
    found = await asyncio.gather(*(write(model, prompt) for prompt in prompts))
    assert model.facts.parallel == 1
    for prompt, (texts, _) in zip(prompts, found, strict=True):
        alone = await write(await load(path=str(tmp_path / "plamo2.gguf"), parallel=1), prompt)
        assert texts == alone[0]
