"""Prompts that arrive together and share a beginning: what is evaluated, counted in tokens."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.plugins.llama_cpp.sample_images import png

from puna.backend import Finish, Prefill, Sampling, SequenceRequest
from puna_llama_cpp.binding.context import Context

MODELS = Path(__file__).parents[3] / "models"
GREEDY = Sampling(temperature=0)
COMMON = (1, *(3 + step % 250 for step in range(619)))
DEEPER = (*COMMON, *(3 + step * 7 % 250 for step in range(280)))


def tail(number, count=12):
    return tuple(3 + (5 + number * 13 + step * step) % 250 for step in range(count))


@pytest.fixture
def evaluated(monkeypatch):
    """The sizes of the batches that are decoded."""
    sizes, decode = [], Context.decode

    def counted(context, batch, **arrangement):
        sizes.append(batch.length)
        return decode(context, batch, **arrangement)

    monkeypatch.setattr(Context, "decode", counted)
    return sizes


@pytest.fixture
def ask(load):
    """Have a model evaluate prompts that arrive in one turn of the loop, and return how each one ended."""

    async def end(model, prompt, salt):
        request = SequenceRequest(prompt=prompt, sampling=GREEDY, max_tokens=1, cache_salt=salt)
        return [event async for event in model.generate(request)][-1]

    async def ask(model, prompts, salts=()):
        salts = salts or [""] * len(prompts)
        return await asyncio.gather(*(end(model, prompt, salt) for prompt, salt in zip(prompts, salts, strict=True)))

    return ask


async def test_eight_prompts_evaluate_their_beginning_once(load, ask, evaluated):
    ends = await ask(await load(parallel=8), [(*COMMON, *tail(n)) for n in range(8)])
    assert sum(evaluated) == len(COMMON) + 8 * 12
    assert evaluated[-1] == 8 * 12  # one pass over the weights for all the ends
    assert sum(end.prompt_tokens - end.cached_prompt_tokens for end in ends) == sum(evaluated)


async def test_each_level_of_nested_beginnings_is_evaluated_once(load, ask, evaluated):
    prompts = [(*(DEEPER if n % 2 else COMMON), *tail(n)) for n in range(8)]
    for order in (prompts, prompts[::-1], sorted(prompts, key=len), sorted(prompts, key=len, reverse=True)):
        evaluated.clear()
        model = await load(parallel=8)
        ends = await ask(model, order)
        assert sum(evaluated) == len(DEEPER) + 8 * 12
        assert all(isinstance(end, Finish) for end in ends)


async def test_prompts_beyond_the_slots_evaluate_only_their_ends(load, ask, evaluated):
    await ask(await load(parallel=3), [(*COMMON, *tail(n)) for n in range(8)])
    assert sum(evaluated) == len(COMMON) + 8 * 12


async def test_salts_share_nothing_with_each_other(load, ask, evaluated):
    prompts = [(*COMMON, *tail(n)) for n in range(6)]
    ends = await ask(await load(parallel=6), prompts, ["", "a", "b", "", "a", "b"])
    assert sum(evaluated) == 3 * len(COMMON) + 6 * 12
    assert sorted(end.cached_prompt_tokens for end in ends) == [0] * 3 + [len(COMMON)] * 3


async def test_an_image_that_all_show_is_evaluated_once(load):
    model = await load(parallel=3, projector_paths=(str(MODELS / "chatter-eye.gguf"),))

    async def end(number):
        prompt = f"what is [img-0] {'this and that ' * 5}{number}"
        request = SequenceRequest(prompt=prompt, media=(png(1),), sampling=GREEDY, max_tokens=1)
        return [event async for event in model.generate(request)][-1]

    ends = await asyncio.gather(*(end(number) for number in range(3)))
    shared = ends[0].prompt_tokens - 1
    assert sorted(end.cached_prompt_tokens for end in ends) == [0, shared, shared]


async def test_what_a_cancelled_prompt_has_evaluated_serves_those_that_waited(load, ask, evaluated):
    model = await load(parallel=4, batch_size=64)
    events = model.generate(SequenceRequest(prompt=(*COMMON, *tail(9)), sampling=GREEDY, max_tokens=1))
    async with aclosing(events):
        assert isinstance(await anext(events), Prefill)
        waiting = asyncio.create_task(ask(model, [(*COMMON, *tail(n)) for n in range(3)]))
        while sum(evaluated) < 200:  # noqa: ASYNC110 (another thread counts)
            await asyncio.sleep(0)
    await waiting
    # The batch in which the first prompt was given up is lost, and no other.
    assert sum(evaluated) <= len(COMMON) + 3 * 12 + 2 * 64
