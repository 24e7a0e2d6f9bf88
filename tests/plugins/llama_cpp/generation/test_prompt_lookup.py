import random

from puna.backend import Sampling
from puna_llama_cpp.generation.prompt_lookup import MAX_DRAFT_TOKENS, PromptLookup


def test_what_followed_before_is_drafted():
    assert PromptLookup().draft([1, 2, 3, 4, 5, 1, 2, 3], 7) == [4, 5]


def test_the_latest_place_counts():
    assert PromptLookup().draft([1, 2, 3, 4, 0, 1, 2, 3, 9, 1, 2, 3], 1) == [9]


def test_a_repetition_goes_on():
    lookup = PromptLookup()
    lookup.update(2, 2)
    assert lookup.draft([5, 6, 5, 6, 5, 6], 4) == [5, 6, 5, 6]


def test_nothing_is_drafted_of_something_new():
    assert PromptLookup().draft([1, 2, 3, 4, 5], 7) == []
    assert PromptLookup().draft([1, 2], 7) == []


def test_images_are_not_drafted():
    assert PromptLookup().draft([1, 2, 3, 4, -7, 1, 2, 3], 7) == [4]


def test_drafts_grow_while_they_are_accepted_and_stop_when_they_are_not():
    lookup, tokens = PromptLookup(), [1, 2, 3, 4, 5, 6, 7, 8, 9] * 2
    lengths = []
    for _ in range(4):
        lengths.append(len(lookup.draft(tokens, MAX_DRAFT_TOKENS)))
        lookup.update(lengths[-1], lengths[-1])
    assert lengths == [2, 4, 7, 7]
    drafted = 0
    for _ in range(200):
        if draft := lookup.draft(tokens, MAX_DRAFT_TOKENS):
            drafted += 1
            lookup.update(len(draft), 0)
    assert drafted < 10


async def test_drafts_change_nothing_but_the_number_of_steps(load, write, monkeypatch):
    """The text is the same with and without drafts: sampled or greedy, with log-probabilities and with a limit."""
    draw = random.Random(3)
    asked = []
    for number in range(24):
        words = "".join(draw.choice("abcdefgh ") for _ in range(20))
        sampling = Sampling(temperature=draw.choice((0, 0.3, 1)), seed=number, repeat_penalty=draw.choice((1.0, 1.1)))
        asked.append((words * 3, {"sampling": sampling, "max_tokens": draw.choice((7, 60)), "top_logprobs": 1}))
    model = await load(context_length=512, parallel=1)
    drafted = 0
    update = PromptLookup.update

    def counting(lookup, count, accepted):
        nonlocal drafted
        drafted += accepted
        update(lookup, count, accepted)

    monkeypatch.setattr(PromptLookup, "update", counting)
    with_drafts = [await write(model, prompt, **request) for prompt, request in asked]
    assert drafted > 5
    monkeypatch.setattr(PromptLookup, "draft", lambda *_: [])
    for (prompt, request), (texts, end) in zip(asked, with_drafts, strict=True):
        plain, plain_end = await write(model, prompt, **request)
        assert (plain, plain_end.reason, plain_end.output_tokens) == (texts, end.reason, end.output_tokens)
