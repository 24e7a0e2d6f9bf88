import asyncio
from contextlib import aclosing

import pytest

from puna.backend import (
    InvalidRequestError,
    Prefill,
    PromptTooLongError,
    Sampling,
    SequenceRequest,
    TextDelta,
    UnsupportedError,
)

GREEDY = Sampling(temperature=0)


async def refusal(model, kind, prompt="hello", **request):
    with pytest.raises(kind) as caught:
        await anext(model.generate(SequenceRequest(prompt=prompt, **request)))
    return str(caught.value)


async def test_facts(load):
    facts = (await load("chatter", context_length=4096, parallel=3)).facts
    assert (facts.context_length, facts.parallel) == (2048, 3)  # clamped to what it was trained for
    assert (facts.adds_bos, facts.bos_id, facts.bos_text) == (True, 1, "<|im_start|>")
    assert (facts.adds_eos, facts.eos_id, facts.eos_text) == (False, 2, "<|im_end|>")
    assert (facts.generates, facts.embedding_length, facts.vram_bytes) == (True, 0, 0)
    cache = 3 * 2048 * 2 * 2 * 32 * 2  # sequences, cells, layers, keys and values, numbers, bytes
    assert cache < facts.size_bytes < cache + 20 * 2**20


async def test_a_sequence_makes_steps_until_it_ends(load):
    model, steps = await load("scripted"), set()
    async with asyncio.timeout(10):
        async with aclosing(model.generate(SequenceRequest(prompt="b", sampling=GREEDY, max_tokens=100_000))) as events:
            async for _ in events:
                steps.add(model.step())
                if len(steps) > 3:
                    break
        while model.step() is not None:  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.01)


async def test_sixteen_sequences_by_default_or_as_many_as_fit_into_half_of_the_free_memory(load):
    cache = 2048 * 2 * 2 * 32 * 2  # cells, layers, keys and values, numbers, bytes: of one sequence
    assert (await load("chatter", parallel=0)).facts.parallel == 16
    assert (await load("chatter", parallel=0, memory_bytes=2**40)).facts.parallel == 16
    assert (await load("chatter", parallel=0, memory_bytes=2 * 5 * cache)).facts.parallel == 5
    assert (await load("chatter", parallel=0, memory_bytes=2 * 5 * cache, kv_cache_type="f32")).facts.parallel == 2
    assert (await load("chatter", parallel=0, memory_bytes=1)).facts.parallel == 1


async def test_sequences_that_nobody_asked_for_are_not_counted_as_memory(load):
    one, sixteen = await load("chatter", parallel=1), await load("chatter", parallel=0)
    assert abs(one.facts.size_bytes - sixteen.facts.size_bytes) < 2**20


async def test_text_gets_bos_and_its_special_tokens_are_read(load):
    model = await load()
    assert await model.tokenize("<|im_end|>a", add_special=True, parse_special=True) == [1, 2, 100]
    plain = await model.tokenize("<|im_end|>a", add_special=False, parse_special=False)
    assert len(plain) == len("<|im_end|>a")


async def test_long_texts_are_tokenized_like_short_ones(load):
    model = await load()
    once = await model.tokenize("wind and fire ", add_special=False, parse_special=False)
    many = await model.tokenize("wind and fire " * 1000, add_special=False, parse_special=False)
    assert many == once * 1000
    pieces = await model.detokenize(many, special=False)
    assert b"".join(pieces).decode() == "wind and fire " * 1000


async def test_special_tokens_are_spelled_on_demand(load):
    model = await load()
    assert await model.detokenize([1, 100, 2], special=False) == [b"", b"a", b""]
    assert await model.detokenize([1, 100, 2], special=True) == [b"<|im_start|>", b"a", b"<|im_end|>"]
    with pytest.raises(InvalidRequestError):
        await model.detokenize([279], special=True)


async def test_special_tokens_in_the_output_are_swallowed_unless_preserved(load, write):
    model = await load("scripted")
    special = Sampling(temperature=0, logit_bias={1: 1e6})
    assert (await write(model, "a", sampling=special, max_tokens=2))[0] == []
    texts, end = await write(model, "a", sampling=special, max_tokens=2, preserved_tokens=("<|im_start|>", "no token"))
    assert (texts, end.output_tokens) == (["<|im_start|>"] * 2, 2)


async def test_no_tokens_wanted(load, write):
    texts, end = await write(await load(), "hello", max_tokens=0)
    assert (texts, end.reason, end.prompt_tokens, end.output_tokens) == ([], "length", 6, 0)
    assert end.prompt_eval_ns > 0 == end.eval_ns


async def test_an_empty_prompt_has_no_answer(load, write):
    texts, end = await write(await load("scripted"), "")
    assert (texts, end.reason, end.prompt_tokens, end.output_tokens) == ([], "stop", 0, 0)


async def test_a_prompt_must_leave_room_for_a_token(load, write):
    model = await load("scripted", context_length=256)
    assert (await write(model, "x" * 255))[1].prompt_tokens == 255
    with pytest.raises(PromptTooLongError) as caught:
        await write(model, "x" * 256)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (256, 256)


async def test_what_cannot_be_is_refused(load):
    model = await load()
    assert "penalty_repeat" in await refusal(model, InvalidRequestError, sampling=Sampling(repeat_penalty=0))
    assert "top_p" in await refusal(model, InvalidRequestError, sampling=Sampling(top_p=float("nan")))
    assert "repeat_last_n" in await refusal(model, InvalidRequestError, sampling=Sampling(repeat_last_n=-2))
    assert "999" in await refusal(model, InvalidRequestError, sampling=Sampling(logit_bias={999: 1.0}))
    assert "999" in await refusal(model, InvalidRequestError, prompt=(1, 999))
    await refusal(model, UnsupportedError, media=(b"png",))
    with pytest.raises(UnsupportedError):
        await model.embed(["text"])


async def test_penalties_may_look_at_the_whole_context(load, write):
    model = await load("scripted")
    sampling = Sampling(temperature=0, repeat_last_n=-1, presence_penalty=1e6)
    texts, _ = await write(model, "l", sampling=sampling, max_tokens=3)
    assert texts[0] == " spam"
    assert " spam" not in texts[1:]


async def test_a_repeated_prompt_is_evaluated_but_for_one_token(load, write):
    model = await load(parallel=1)
    first = await write(model, "the llama on the hill")
    again = await write(model, "the llama on the hill")
    assert first[0] == again[0]
    assert first[1].cached_prompt_tokens == 0
    assert again[1].cached_prompt_tokens == again[1].prompt_tokens - 1


async def test_the_first_delta_counts_what_was_cached(load):
    model = await load(parallel=1)
    for cached in (0, len(prompt := [1, *range(20, 90)]) - 1):
        request = SequenceRequest(prompt=prompt, sampling=GREEDY, max_tokens=10)
        *events, end = [event async for event in model.generate(request) if not isinstance(event, Prefill)]
        assert [event.cached_prompt_tokens for event in events] == [cached, *[0] * (len(events) - 1)]
        assert end.cached_prompt_tokens == cached


async def test_a_chat_goes_on_where_it_was(load, write):
    model = await load(parallel=1)
    texts, end = await write(model, "the llama on the hill", max_tokens=10)
    longer = "the llama on the hill" + "".join(texts) + " and"
    _, second = await write(model, longer)
    assert second.cached_prompt_tokens >= end.prompt_tokens
    fresh = await load(parallel=1)
    assert (await write(fresh, longer))[0] == (await write(model, longer))[0]


async def test_sequences_together_write_what_they_write_alone(load, write):
    prompts = ["hello", "the wind", "a" * 300, "a" * 299 + "b", "zebra", "b" * 100]
    alone = [(await write(await load(parallel=1), prompt))[0] for prompt in prompts]
    model = await load(parallel=3)
    for order in (prompts, prompts[::-1]):
        together = await asyncio.gather(*(write(model, prompt) for prompt in order))
        assert [texts for texts, _ in together] == [alone[prompts.index(prompt)] for prompt in order]


async def test_a_prefix_is_shared_with_one_who_still_writes(load, write):
    model = await load(parallel=2)
    long = "river and stone and " * 20
    expected = (await write(await load(parallel=1), long + "x"))[0]
    running = model.generate(SequenceRequest(prompt=long, sampling=GREEDY, max_tokens=2000))
    while not isinstance(await anext(running), TextDelta):
        pass
    texts, end = await write(model, long + "x")
    assert texts == expected
    assert end.cached_prompt_tokens > 300
    await running.aclose()


async def test_the_more_urgent_go_first(load):
    model = await load("scripted", parallel=1)
    ended = []

    async def run(name, priority):
        request = SequenceRequest(prompt="b", sampling=GREEDY, max_tokens=30, priority=priority)
        async for _ in model.generate(request):
            pass
        ended.append(name)

    first = asyncio.create_task(run("first", 0))
    await asyncio.sleep(0)  # it is queued before the others
    await asyncio.gather(first, run("late", 0), run("urgent", 1))
    assert ended.index("urgent") < ended.index("late")


async def test_progress_of_a_long_prompt_is_told(load):
    model = await load()
    request = SequenceRequest(prompt="x" * 1500, sampling=GREEDY, max_tokens=1)
    *early, _, _ = [event async for event in model.generate(request)]
    assert [(event.done_tokens, event.total_tokens) for event in early] == [(512, 1501), (1024, 1501)]


@pytest.mark.parametrize(
    ("kind", "shifts"), [("f32", True), ("f16", True), ("bf16", False), ("q8_0", False), ("q4_0", False)]
)
async def test_a_full_cache_ends_the_answer_where_a_shift_would_end_the_process(load, write, kind, shifts):
    # The heads of this model are shorter than 64, so llama.cpp quantizes their keys without the rotation that its shift
    # counts on.
    model = await load("scripted", context_length=256, parallel=1, kv_cache_type=kind)
    _, end = await write(model, "b", max_tokens=400)
    assert end.reason == "length"
    assert (end.output_tokens == 400) == shifts
