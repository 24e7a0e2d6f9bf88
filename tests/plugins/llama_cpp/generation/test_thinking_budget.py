"""A thinking budget closes the thinking after exactly as many tokens, whatever else the engine does."""

import asyncio

import pytest

from puna.backend import Finish, Sampling, SequenceRequest, TextDelta, ThinkingBudget, ThinkingMarkers
from puna_llama_cpp.generation.draft_policy import Draft
from puna_llama_cpp.generation.sequence import Sequence
from puna_llama_cpp.generation.speculation import Speculator

CLOSING = "</t>\n"
GREEDY = Sampling(temperature=0)


def budget(most, **markers):
    """Return a budget for thinking that the prompt begins. The random models never write its end by themselves."""
    given = {"open": True, "ends": ("</t>",), "closings": (CLOSING,)} | markers
    return ThinkingBudget(max_tokens=most, markers=ThinkingMarkers(**given))


async def run(model, prompt="hello", most=None, sampling=GREEDY, markers=None, **request):
    """Generate; return the ids of the tokens, the text and the Finish."""
    if most is not None:
        request["thinking_budget"] = budget(most, **markers or {})
    request = SequenceRequest(
        prompt=prompt, **{"sampling": sampling, "max_tokens": 40, "top_logprobs": 0, "cache_salt": "own"} | request
    )
    ids, text = [], ""
    async for event in model.generate(request):
        if isinstance(event, TextDelta):
            ids += [entry.token_id for entry in event.logprobs]
            text += event.text
        elif isinstance(event, Finish):
            return ids, text, event
    raise AssertionError("no end")


async def closing(model):
    return await model.tokenize(CLOSING, add_special=False, parse_special=True)


@pytest.mark.parametrize("most", [0, 1, 2, 7, 20])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1, seed=3, repeat_penalty=1.1)])
async def test_exactly_as_many_tokens_then_the_closing_text_then_more(load, most, sampling):
    model = await load()
    free, _, _ = await run(model, sampling=sampling)
    ids, text, end = await run(model, most=most, sampling=sampling)
    forced = await closing(model)
    assert ids[:most] == free[:most]
    assert ids[most : most + len(forced)] == forced
    assert end.thinking_tokens == most
    assert end.output_tokens > most + len(forced)
    assert text.count("</t>") == 1


async def test_a_budget_that_is_not_spent_changes_nothing(load):
    model = await load()
    free = await run(model)
    within = await run(model, most=1000)
    assert within[:2] == free[:2]
    assert within[2].thinking_tokens == 40


@pytest.mark.parametrize("most", [0, 3])
async def test_thinking_that_the_model_begins_itself(load, most):
    model = await load()
    free, _, _ = await run(model)
    words = [(await model.detokenize([token], special=True))[0].decode(errors="replace") for token in free]
    place = next(i for i, word in enumerate(words) if i > 2 and len(word) > 2 and words.index(word) == i)
    markers = {"open": False, "again": True, "starts": (words[place],)}
    ids, _, end = await run(model, most=most, markers=markers)
    begin = place + 1 + most
    assert ids[:begin] == free[:begin]
    assert ids[begin : begin + len(await closing(model))] == await closing(model)
    assert end.thinking_tokens == most


async def test_across_context_shifts(load):
    model = await load(context_length=256)
    forced = await closing(model)
    endless = Sampling(temperature=0, logit_bias=dict.fromkeys(model._vocabulary.end_tokens, float("-inf")))
    free, _, _ = await run(model, max_tokens=700, sampling=endless)
    for most in (300, 550):
        ids, _, end = await run(model, most=most, max_tokens=700, sampling=endless, cache_salt=str(most))
        assert ids[:most] == free[:most]
        assert ids[most : most + len(forced)] == forced
        assert (end.thinking_tokens, end.output_tokens) == (most, 700)


async def test_with_speculative_decoding(load, monkeypatch):
    """The drafts are what the model writes without a budget, so all of them are accepted up to the closing text."""
    model = await load()
    prompt = tuple(await model.tokenize("hello", add_special=True, parse_special=True))
    free, _, _ = await run(model, prompt=prompt)
    forced = await closing(model)
    accepted = 0

    def draft(speculator, index, salt, decoding, limit, forced=b""):
        drafted = [*prompt, *free][len(index.tokens) :][:limit]
        return Draft(drafted, [0] * len(drafted))

    def observe(speculator, salt, proposed, right):
        nonlocal accepted
        accepted += right

    monkeypatch.setattr(Speculator, "draft", draft)
    monkeypatch.setattr(Speculator, "observe", observe)
    for most in range(4, 20):
        accepted = 0
        ids, _, end = await run(model, prompt=prompt, most=most)
        assert accepted > 0
        assert ids[:most] == free[:most]
        assert ids[most : most + len(forced)] == forced
        assert end.thinking_tokens == most


async def test_beside_others_and_with_a_shared_beginning(load):
    model = await load(parallel=4)
    prompt = (1, *(3 + step % 250 for step in range(300)))
    free, _, _ = await run(model, prompt=prompt)
    mosts = (None, 0, 5, 11)
    together = await asyncio.gather(*(run(model, prompt=prompt, most=most, cache_salt="t") for most in mosts))
    for most, (ids, _, end) in zip(mosts, together, strict=True):
        kept = 40 if most is None else most
        assert ids[:kept] == free[:kept]
        assert end.thinking_tokens == (most or 0)
    assert sum(end.cached_prompt_tokens > 200 for *_, end in together) == 3


@pytest.mark.parametrize(
    ("tokens", "forced"),
    [([1, 2], [7, 8, 7, 9]), ([1, 7], [8, 7, 9]), ([7, 8], [7, 9]), ([7, 8, 7], [9]), ([8], [7, 8, 7, 9])],
)
async def test_what_is_written_of_the_closing_text_is_not_repeated(tokens, forced):
    request = SequenceRequest(prompt="", thinking_budget=budget(0))
    sequence = Sequence(request, tokens, None, frozenset(), closings={CLOSING: [7, 8, 7, 9]})
    assert [sequence.forced_token() for _ in range(len(forced) + 1)] == [*forced, None]


async def test_the_token_limit_may_cut_the_closing_text(load):
    model = await load()
    ids, _, end = await run(model, most=3, max_tokens=4)
    assert ids[3:] == (await closing(model))[:1]
    assert (end.reason, end.output_tokens, end.thinking_tokens) == ("length", 4, 3)
