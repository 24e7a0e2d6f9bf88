"""The engine as its clients see it: cancellation, and sequences that share batches and the cache."""

import asyncio
import random
import threading
from contextlib import aclosing
from pathlib import Path

import pytest

from puna.backend import BackendError, Finish, ModelSpec, Prefill, Sampling, SequenceRequest, TextDelta
from puna_llama_cpp import LlamaCppBackend
from puna_llama_cpp.binding.context import AbortedError, Context
from puna_llama_cpp.generation.draft_policy import Draft
from puna_llama_cpp.generation.prefix_cache import MIN_COPY_GAIN
from puna_llama_cpp.generation.speculation import Speculator

GREEDY = Sampling(temperature=0)


async def test_closing_in_the_middle_of_a_stream_frees_the_slot(load, write):
    model = await load(parallel=1)
    async with aclosing(model.generate(SequenceRequest(prompt="hello", sampling=GREEDY, max_tokens=10**6))) as events:
        async for _ in events:
            break
    texts, _ = await asyncio.wait_for(write(model, "hello", max_tokens=5), 10)
    assert texts == (await write(await load(), "hello", max_tokens=5))[0]


async def test_a_cancelled_prompt_is_given_up_in_the_middle_of_a_batch(load, write, monkeypatch):
    """The batch has the whole prompt. It begins, and is given up although nothing of it is computed yet."""
    begun, asked, aborted = asyncio.Event(), threading.Event(), []
    model, loop, evaluate = await load(parallel=1, batch_size=2048), asyncio.get_running_loop(), Context.decode
    prompt = (1, *range(3, 250)) * 8  # 1984 tokens

    def decode(context, batch, **how):
        if not begun.is_set():
            loop.call_soon_threadsafe(begun.set)
            assert asked.wait(10)
        try:
            return evaluate(context, batch, **how)
        except AbortedError:
            aborted.append(batch.length)
            raise

    def cancel(sequence, cancel=model._engine.cancel):
        cancel(sequence)
        asked.set()

    monkeypatch.setattr(Context, "decode", decode)
    monkeypatch.setattr(model._engine, "cancel", cancel)
    waiting = asyncio.ensure_future(anext(model.generate(SequenceRequest(prompt=prompt, sampling=GREEDY))))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    _, end = await write(model, "hello", max_tokens=0)
    assert end.prompt_tokens == 6
    assert aborted == [len(prompt)]
    texts, end = await write(model, prompt, max_tokens=5)  # nothing half-evaluated was left behind
    assert texts == (await write(await load(parallel=1), prompt, max_tokens=5))[0]


@pytest.mark.parametrize("beside", [False, True])
async def test_a_decoding_step_is_given_up_if_it_serves_nobody_else(load, write, monkeypatch, beside):
    begun, asked, aborted = threading.Event(), threading.Event(), []
    model, prompt, decode = await load(parallel=2), "the wind and the river " * 4, Context.decode
    expected, _ = await write(model, prompt, max_tokens=60, cache_salt="another")
    steps = 0

    def decode_and_cancel(context, *batch, **how):
        nonlocal steps
        steps += begun.is_set()  # the other stream may be ahead
        if steps == 20:
            loop.call_soon_threadsafe(doomed.cancel)
            assert asked.wait(10)
        try:
            decode(context, *batch, **how)
        except AbortedError:
            aborted.append(steps)
            raise

    def cancel(sequence, cancel=model._engine.cancel):
        cancel(sequence)
        asked.set()

    async def write_on():
        async for event in model.generate(SequenceRequest(prompt=prompt, sampling=GREEDY, max_tokens=10**6)):
            if isinstance(event, TextDelta):
                begun.set()

    loop = asyncio.get_running_loop()
    other = asyncio.create_task(write(model, "hello", max_tokens=10**6)) if beside else None
    monkeypatch.setattr(Context, "decode", decode_and_cancel)
    monkeypatch.setattr(model._engine, "cancel", cancel)
    doomed = asyncio.create_task(write_on())
    with pytest.raises(asyncio.CancelledError):
        await doomed
    if other is not None:
        decoded = steps
        while steps < decoded + 5:
            assert not other.done()
            await asyncio.sleep(0)
        assert aborted == []
        other.cancel()
        await asyncio.wait({other})
    texts, end = await write(model, prompt, max_tokens=60)
    assert beside or aborted == [20]
    assert texts == expected
    assert end.cached_prompt_tokens == end.prompt_tokens - 1


async def test_others_in_the_batch_lose_nothing(load, write, caplog):
    expected = (await write(await load(parallel=1), "hello", max_tokens=200))[0]
    model = await load(parallel=3)
    writing = asyncio.create_task(write(model, "hello", max_tokens=200))
    for number in range(12):
        prompt = (1, *(3 + (number + step) % 250 for step in range(1500)))
        async with aclosing(model.generate(SequenceRequest(prompt=prompt, sampling=GREEDY))) as events:
            assert isinstance(await anext(events), Prefill)
    assert (await writing)[0] == expected
    assert caplog.messages == []  # an abort on demand is no error


async def test_cancelled_while_waiting_for_a_slot(load, write):
    model = await load("scripted", parallel=1)
    async with aclosing(model.generate(SequenceRequest(prompt="b", sampling=GREEDY, max_tokens=10**6))) as running:
        await anext(running)
        waiting = asyncio.create_task(write(model, "hello"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert isinstance(await anext(running), TextDelta)


async def test_waiting_requests_hear_that_the_model_is_unloaded():
    path = str(Path(__file__).parents[3] / "models/scripted.gguf")
    model = await LlamaCppBackend().load(ModelSpec(path=path, threads=1, parallel=1), lambda done: None)
    events = model.generate(SequenceRequest(prompt="b", sampling=GREEDY, max_tokens=10**6))
    await anext(events)
    await model.aclose()
    with pytest.raises(BackendError, match="unloaded"):
        async for _ in events:
            pass


async def test_whatever_is_asked_the_engine_goes_on(load, write):
    """Requests have extreme and senseless values, and a third of them is cancelled early."""
    model = await load("chatter", context_length=300, parallel=3)
    draw = random.Random(1)

    def request():
        return SequenceRequest(
            prompt="x" * draw.choice((1, 5, 280, 400)),
            sampling=Sampling(
                temperature=draw.choice((0, -1, 0.5, 1e-9, 1e30)),
                top_k=draw.choice((0, 1, -7, 10**12)),
                top_p=draw.choice((0, -1, 0.5, 9)),
                min_p=draw.choice((0, -1, 0.5, 9)),
                typical_p=draw.choice((0, -1, 0.5, 9)),
                repeat_last_n=draw.choice((0, -1, 5, 10**12)),
                repeat_penalty=draw.choice((1, 1e-6, 1e9)),
                frequency_penalty=draw.choice((0, -5, 5)),
                seed=draw.choice((None, -1, 2**40)),
                logit_bias=draw.choice(({}, {5: float("-inf")}, {2: 3.0})),
            ),
            max_tokens=draw.choice((0, 1, 5, 200)),
            shift=draw.random() < 0.5,
            keep_tokens=draw.choice((-1, 0, 10**9)),
            top_logprobs=draw.choice((None, 0, 1000)),
            stop=draw.choice(((), ("",), ("star",))),
        )

    async def run(most):
        count = 0
        async with aclosing(model.generate(request())) as events:
            async for event in events:
                count += 1
                if count == most or isinstance(event, Finish):
                    return

    async with asyncio.timeout(60):
        await asyncio.gather(*(run(draw.choice((1, 3, 10**6))) for _ in range(40)))
        expected = (await write(await load("chatter", context_length=300), "hello"))[0]
        assert (await write(model, "hello"))[0] == expected


async def test_prompts_that_arrive_together_evaluate_what_they_share_once(load, write):
    model = await load(parallel=4, batch_size=64)
    shared = (1, *(3 + step % 250 for step in range(600)))
    alone = [await write(await load(parallel=1), (*shared, 3 + n, 9), max_tokens=8) for n in range(4)]
    together = await asyncio.gather(*(write(model, (*shared, 3 + n, 9), max_tokens=8) for n in range(4)))
    assert [texts for texts, _ in together] == [texts for texts, _ in alone]
    assert sorted(end.cached_prompt_tokens > 601 - MIN_COPY_GAIN for _, end in together) == [False, True, True, True]


async def test_what_follows_a_shared_beginning_is_evaluated_together(load, write, monkeypatch):
    lengths = []

    def decode(context, batch, **arrangement):
        lengths.append(batch.length)
        return evaluate(context, batch, **arrangement)

    evaluate = Context.decode
    shared = (1, *(3 + step % 250 for step in range(600)))
    prompts = [(*shared, *(3 + n * 13 + step for step in range(20))) for n in range(4)]
    alone = [await write(await load(parallel=1), prompt, max_tokens=8) for prompt in prompts]
    model = await load(parallel=4)
    monkeypatch.setattr(Context, "decode", decode)
    together = await asyncio.gather(*(write(model, prompt, max_tokens=8) for prompt in prompts))
    assert [texts for texts, _ in together] == [texts for texts, _ in alone]
    assert lengths[:3] == [512, len(shared) - 512, 4 * 20]
    assert max(lengths[3:]) <= 4


async def test_a_prompt_that_waits_for_a_cancelled_one_goes_on_alone(load, write):
    model = await load(parallel=2, batch_size=64)
    prompt = (1, *(3 + step % 250 for step in range(1500)))
    expected = await write(await load(parallel=1), prompt, max_tokens=4)
    async with aclosing(model.generate(SequenceRequest(prompt=prompt, sampling=GREEDY))) as events:
        assert isinstance(await anext(events), Prefill)
        waiting = asyncio.create_task(write(model, prompt, max_tokens=4))
        await asyncio.sleep(0)
    assert (await asyncio.wait_for(waiting, 20))[0] == expected[0]


async def test_streams_come_and_go_without_harm_to_each_other(load, write):
    """Slots become idle in the middle, are padded, moved and occupied again."""
    draw = random.Random(5)
    model = await load(parallel=6, context_length=512)
    reference = await load(parallel=1, context_length=512)
    asked = [("x" * draw.choice((3, 40)) + str(n % 7), draw.choice((1, 5, 30, 60))) for n in range(40)]
    expected = [(await write(reference, prompt, max_tokens=count))[0] for prompt, count in asked]
    free = asyncio.Semaphore(5)

    async def ask(prompt, count):
        async with free:
            return (await write(model, prompt, max_tokens=count))[0]

    assert await asyncio.gather(*(ask(prompt, count) for prompt, count in asked)) == expected


async def test_a_sequence_that_drafts_all_the_time_lets_others_in(load, write, monkeypatch):
    monkeypatch.setattr(Speculator, "draft", lambda *_: Draft([4, 4], [0, 0]))
    model = await load(parallel=4)
    endless = SequenceRequest(prompt="hello", sampling=GREEDY, max_tokens=10**6)
    async with aclosing(model.generate(endless)) as events:
        await anext(events)
        texts, _ = await asyncio.wait_for(write(model, "and", max_tokens=5), 10)
    assert texts


async def test_the_finish_counts_drafts(load, write):
    _, finish = await write(await load("scripted", context_length=4096), "b", max_tokens=200)
    # The text repeats itself after forty words, and everything that is drafted then is right. How much is drafted
    # depends on the duration of steps.
    assert 0 < finish.accepted_draft_tokens <= finish.draft_tokens < 200


async def test_chats_that_begin_alike_keep_their_places_beside_each_other(load):
    draw, model, alone = random.Random(3), await load(parallel=4), await load(parallel=1)
    beginning, answers = await tokenized(model, "the wind and the river " * 20), []

    async def chat(number):
        said, known = beginning, 0
        for turn in range(6):
            said = said + await tokenized(model, f" {number} said {turn}: ".ljust(36 + number, "."))
            tokens, end = await continued(model, said, draw.randrange(40, 80))
            assert end.cached_prompt_tokens >= known
            answers.append((said, tokens))
            said = said + tuple(token.token_id for token in tokens)
            known = len(said) - 1
            await asyncio.sleep(draw.random() / 50)

    await asyncio.gather(*(chat(number) for number in range(4)))
    for prompt, tokens in answers:
        for ours, anew in zip(tokens, (await continued(alone, prompt, len(tokens)))[0], strict=False):
            # The last bits depend on where evaluation began.
            assert ours.logprob == pytest.approx(anew.logprob, abs=0.1)
            if ours.token_id != anew.token_id:
                break


async def tokenized(model, text):
    return tuple(await model.tokenize(text, add_special=False, parse_special=False))


async def continued(model, prompt, count):
    """Return an answer's tokens with their log-probabilities, and its Finish."""
    request = SequenceRequest(prompt=prompt, sampling=GREEDY, max_tokens=count, top_logprobs=0)
    *deltas, end = [event async for event in model.generate(request)]
    return [each for delta in deltas for each in getattr(delta, "logprobs", ())], end
