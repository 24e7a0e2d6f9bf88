"""Log-probabilities of prompts with the real engine: shared prefixes, full batches, neighbours."""

import asyncio

import pytest

from puna.backend import Finish, PromptLogprobs, PromptTooLongError, Sampling, SequenceRequest
from puna_llama_cpp.binding.context import MIN_OUTPUTS, SCORED_OUTPUTS


@pytest.fixture
def score():
    """Score a prompt from an index on; return its log-probabilities, the number of events with them, and the Finish."""

    async def score(model, prompt, start, **request):
        request = {"max_tokens": 0, "sampling": Sampling(temperature=0), "top_logprobs": 1, **request}
        found, events = [], 0
        async for event in model.generate(SequenceRequest(prompt=tuple(prompt), score_from=start, **request)):
            if isinstance(event, PromptLogprobs):
                found += event.logprobs
                events += 1
            elif isinstance(event, Finish):
                finish = event
        return found, events, finish

    return score


def values(found):
    return [each.logprob for each in found]


async def test_a_common_context_is_evaluated_once(load, score):
    model = await load("jinja", parallel=8, context_length=512)
    context = [50 + number % 90 for number in range(300)]
    ends = [[60 + number, 61, 62 + number, 63] for number in range(8)]
    alone = [await score(model, [*context, *end], len(context), cache_salt=str(end)) for end in ends]
    answers = await asyncio.gather(*(score(model, [*context, *end], len(context)) for end in ends))
    evaluated = sum(finish.prompt_tokens - finish.cached_prompt_tokens for _, _, finish in answers)
    assert evaluated <= len(context) + sum(map(len, ends)) + len(ends)
    for (found, _, finish), (expected, _, _) in zip(answers, alone, strict=True):
        assert values(found) == pytest.approx(values(expected), abs=1e-3)
        assert finish.prompt_tokens == len(context) + 4


async def test_many_scored_prompts_share_the_rows_of_a_batch(load, score):
    model = await load("jinja", parallel=8, context_length=512)
    prompts = [[50 + (number * step) % 90 for step in range(200)] for number in range(1, 9)]
    alone = [await score(model, prompt, 1, cache_salt="alone") for prompt in prompts]
    rows = max(8, MIN_OUTPUTS) + SCORED_OUTPUTS
    assert alone[0][1] >= 199 // rows, "a batch has more rows than the context has room for"
    together = await asyncio.gather(*(score(model, prompt, 1, cache_salt="together") for prompt in prompts))
    for (found, *_), (expected, *_) in zip(together, alone, strict=True):
        assert len(found) == 199
        assert values(found) == pytest.approx(values(expected), abs=1e-3)


async def test_a_neighbour_that_is_cancelled_in_its_prefill_changes_nothing(load, score):
    model = await load("chatter", parallel=2, context_length=2048)
    prompt = [5 + number % 200 for number in range(700)]
    expected = values((await score(model, prompt, 1, cache_salt="a"))[0])
    for delay in (0.0, 0.01, 0.03):
        neighbour = asyncio.create_task(score(model, prompt[::-1], 1, cache_salt=str(delay)))
        scoring = asyncio.create_task(score(model, prompt, 1, cache_salt=f"b{delay}"))
        await asyncio.sleep(delay)
        neighbour.cancel()
        found = values((await scoring)[0])
        assert found == pytest.approx(expected, abs=0.05)


async def test_a_prompt_that_is_only_scored_may_fill_the_context(load, score):
    model = await load("jinja", parallel=1, context_length=256)
    found, _, finish = await score(model, [60] * 256, 250)
    assert (len(found), finish.prompt_tokens) == (6, 256)
    with pytest.raises(PromptTooLongError) as raised:
        await score(model, [60] * 257, 250)
    assert raised.value.prompt_tokens == 257
    with pytest.raises(PromptTooLongError):
        await score(model, [60] * 256, 250, max_tokens=1)


async def test_the_log_probabilities_of_a_recurrent_model(load, score):
    model = await load("wanderer", parallel=2, context_length=512)
    prompt = [5 + number % 200 for number in range(120)]
    whole, *_ = await score(model, prompt, 1)
    part, *_ = await score(model, prompt, 100)
    assert values(part) == pytest.approx(values(whole)[-20:], abs=1e-3)
