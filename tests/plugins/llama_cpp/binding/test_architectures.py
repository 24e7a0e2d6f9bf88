"""Architectures of which llama.cpp computes something else than asked, or ends the process.

`python -m tools.architectures` finds them.
"""

import asyncio

import pytest
from tools.architectures import hyperparameters, make

from puna.backend import InvalidRequestError, Sampling, SequenceRequest, TextDelta

NOISE = 0.001
"""By how much log-probabilities differ where F32 weights are evaluated in other parts."""
PLAIN = {"kv_cache_type": "f32", "flash_attention": "off"}


def prompt(seed, length):
    return tuple(10 + (seed * 31 + step * step) % 400 for step in range(length))


async def scores(model, tokens):
    """Return the log-probabilities of what a model writes behind token ids, and how many of these it had cached."""
    request = SequenceRequest(prompt=tokens, sampling=Sampling(temperature=0), max_tokens=3, top_logprobs=1)
    found = []
    async for event in model.generate(request):
        found += [each.logprob for each in event.logprobs] if isinstance(event, TextDelta) else []
    return found, event.cached_prompt_tokens


async def test_logits_are_those_of_the_last_token(load, tmp_path):
    """llama.cpp's graph of CogVLM computes logits for all tokens of a batch, and hands out the first ones."""
    make.make(tmp_path / "model.gguf", "cogvlm")
    model = await load(path=str(tmp_path / "model.gguf"), **PLAIN)
    await scores(model, prompt(1, 90))
    continued, cached = await scores(model, prompt(1, 90) + prompt(2, 9))
    # Its tokens were evaluated one by one, which makes each the first of its batch.
    single = await load(path=str(tmp_path / "model.gguf"), batch_size=1, parallel=1, **PLAIN)
    assert continued == pytest.approx((await scores(single, prompt(1, 90) + prompt(2, 9)))[0], abs=NOISE)
    assert cached == 90


async def test_a_batch_without_logits_does_not_end_the_process(load, tmp_path):
    """llama.cpp's graph of Chameleon takes the tokens of images out of the first row of logits, and wants one."""
    make.make(tmp_path / "model.gguf", "chameleon")
    model = await load(path=str(tmp_path / "model.gguf"), batch_size=32, parallel=4, **PLAIN)
    found = await asyncio.gather(*(scores(model, prompt(seed, 90)) for seed in (1, 2)))
    for seed, (values, _) in zip((1, 2), found, strict=True):
        whole = await load(path=str(tmp_path / "model.gguf"), batch_size=512, parallel=1, **PLAIN)
        assert values == pytest.approx((await scores(whole, prompt(seed, 90)))[0], abs=NOISE)


@pytest.mark.parametrize("architecture", ["arwkv7", "rwkv6qwen2"])
async def test_prompts_at_once_have_states_of_their_own(load, tmp_path, architecture):
    """llama.cpp stores the token shift of several prompts as if their last tokens stood side by side."""
    make.make(tmp_path / "model.gguf", architecture)
    prompts = [prompt(seed, 5 + seed) for seed in range(3)]
    model = await load(path=str(tmp_path / "model.gguf"), parallel=4, **PLAIN)
    found = await asyncio.gather(*(scores(model, each) for each in prompts))
    for each, (values, _) in zip(prompts, found, strict=True):
        alone = await load(path=str(tmp_path / "model.gguf"), parallel=1, **PLAIN)
        assert values == pytest.approx((await scores(alone, each))[0], abs=NOISE)


async def test_an_encoder_with_a_decoder_is_refused(load, tmp_path):
    """llama.cpp would end the process at the first prompt."""
    make.make(tmp_path / "model.gguf", "t5")
    with pytest.raises(InvalidRequestError, match='"t5" is an encoder with a decoder'):
        await load(path=str(tmp_path / "model.gguf"))


@pytest.mark.parametrize("architecture", ["dream", "llada", "llada-moe", "rnd1"])
async def test_a_model_that_writes_by_diffusion_is_refused(load, tmp_path, architecture):
    """It has no KV cache, so llama.cpp would end the process at the first prompt."""
    make.make(tmp_path / "model.gguf", architecture, experts=architecture in ("llada-moe", "rnd1"))
    with pytest.raises(InvalidRequestError, match=f'"{architecture}" writes text by diffusion'):
        await load(path=str(tmp_path / "model.gguf"))


async def test_a_model_made_of_one_that_diffuses_embeds(load, tmp_path, monkeypatch):
    """The file names a pooling."""
    shape = hyperparameters.Shape(more={"attention.causal": False, "pooling_type": 1})
    monkeypatch.setitem(hyperparameters.SHAPES, "dream", shape)
    make.make(tmp_path / "model.gguf", "dream")
    model = await load(path=str(tmp_path / "model.gguf"))
    assert len((await model.embed(["text"]))[0].values) == model.facts.embedding_length


async def test_an_encoder_without_pooling_is_refused(load, tmp_path, monkeypatch):
    """llama.cpp would end the process at the first prompt."""
    monkeypatch.setitem(hyperparameters.SHAPES, "bert", hyperparameters.Shape(kv_heads=4))
    make.make(tmp_path / "model.gguf", "bert")
    with pytest.raises(InvalidRequestError, match='"bert" has no KV cache'):
        await load(path=str(tmp_path / "model.gguf"))


async def test_a_model_that_flash_attention_does_not_fit_runs_without(load, tmp_path):
    """llama.cpp chooses flash attention for PLM, and ggml aborts."""
    make.make(tmp_path / "model.gguf", "plm")
    for choice in ("", "on"):
        model = await load(path=str(tmp_path / "model.gguf"), flash_attention=choice)
        assert len((await scores(model, prompt(1, 90)))[0]) == 3


@pytest.mark.parametrize(
    ("architecture", "rotated"), [("stablelm", 16), ("stablelm", 64), ("deepseek2", None), ("minimax-m3", None)]
)
async def test_quantized_keys_that_rope_rotates_in_part_are_not_shifted(
    load, tmp_path, monkeypatch, architecture, rotated
):
    """ggml would abort. The answer ends at the end of the context instead."""
    if rotated:
        shape = hyperparameters.Shape(more={"rope.dimension_count": rotated})
        monkeypatch.setitem(hyperparameters.SHAPES, architecture, shape)
    make.make(tmp_path / "model.gguf", architecture, experts=architecture != "stablelm")
    model = await load(path=str(tmp_path / "model.gguf"), context_length=256, kv_cache_type="q8_0")
    sampling = Sampling(temperature=0, logit_bias=dict.fromkeys(range(len(make.CONTROLS)), -100.0))
    request = SequenceRequest(prompt=prompt(1, 200), sampling=sampling, max_tokens=100)
    *_, end = [event async for event in model.generate(request)]
    assert end.output_tokens == (100 if rotated == 64 else 56)


@pytest.mark.parametrize(
    ("architecture", "layers", "window", "shifts"),
    [
        ("smollm3", 4, 0, False),
        ("cohere2", 4, 64, False),
        ("exaone4", 4, 64, False),
        ("exaone4", 2, 0, True),
        ("baichuan", 2, 0, False),
        ("baichuan", 32, 0, True),
    ],
)
async def test_keys_that_rope_has_not_rotated_are_not_shifted(
    load, tmp_path, monkeypatch, architecture, layers, window, shifts
):
    """llama.cpp would rotate them, so that a text goes on as if its tokens stood elsewhere."""
    more = {"attention.sliding_window": window}
    shape = hyperparameters.Shape(layers=layers, hidden=64, heads=1, kv_heads=1, forward=64, more=more)
    monkeypatch.setitem(hyperparameters.SHAPES, architecture, shape)
    make.make(tmp_path / "model.gguf", architecture)
    model = await load(path=str(tmp_path / "model.gguf"), context_length=256)
    sampling = Sampling(temperature=0, logit_bias=dict.fromkeys(range(len(make.CONTROLS)), -100.0))
    request = SequenceRequest(prompt=prompt(1, 200), sampling=sampling, max_tokens=70)
    *_, end = [event async for event in model.generate(request)]
    assert end.output_tokens == (70 if shifts else 56)


async def test_attention_of_one_token_that_has_its_own_graph_meets_no_drafts(load, tmp_path):
    """llama.cpp adds up in another order for several tokens, so drafts would decide about the text."""
    make.make(tmp_path / "model.gguf", "minimax-m3", experts=True)
    sampling = Sampling(temperature=0, logit_bias=dict.fromkeys(range(len(make.CONTROLS)), -100.0))
    request = SequenceRequest(prompt=prompt(1, 40) * 4, sampling=sampling, max_tokens=60, top_logprobs=1)
    found = []
    for drafts in (True, False):
        model = await load(path=str(tmp_path / "model.gguf"), backend_options={"speculative_decoding": drafts})
        events = [event async for event in model.generate(request)]
        found.append([each.logprob for event in events if isinstance(event, TextDelta) for each in event.logprobs])
    assert found[0] == found[1]


@pytest.mark.parametrize("architecture", ["gemma4", "falcon-h1", "qwen35", "minimax-01"])
async def test_a_model_of_several_kinds_of_memory_writes_the_same_in_company(load, tmp_path, architecture):
    """Windows, shared keys, recurrent states beside attention, linear attention."""
    make.make(tmp_path / "model.gguf", architecture, experts=architecture == "minimax-01")
    beginning = prompt(1, 90)
    prompts = [beginning + prompt(seed, 3 + 4 * seed) for seed in range(2, 6)]
    model = await load(path=str(tmp_path / "model.gguf"), parallel=4, **PLAIN)
    for _ in range(2):
        found = await asyncio.gather(*(scores(model, each) for each in prompts))
        for each, (values, _) in zip(prompts, found, strict=True):
            alone = await load(path=str(tmp_path / "model.gguf"), parallel=1, **PLAIN)
            assert values == pytest.approx((await scores(alone, each))[0], abs=3 * NOISE)
