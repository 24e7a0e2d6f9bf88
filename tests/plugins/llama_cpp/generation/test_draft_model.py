"""A draft model changes how many steps an answer takes, and nothing else."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.plugins.llama_cpp.sample_images import png

from puna.backend import Sampling, SequenceRequest
from puna_llama_cpp.generation.draft_model import MISSING_TOKENS, DraftModel
from puna_llama_cpp.generation.draft_policy import MODEL_PASS, NO_DRAFT, Draft, Learned, StepCosts
from puna_llama_cpp.generation.drafter import Asked
from puna_llama_cpp.generation.ngram_index import NgramIndex
from puna_llama_cpp.generation.speculation import Speculator

MODELS = Path(__file__).parents[3] / "models"
TWIN = {"draft_path": str(MODELS / "chatter.gguf"), "draft_tokens": 4}
TEXT = [1, *range(20, 90)]
GREEDY = Sampling(temperature=0)


@pytest.fixture
def cheap(monkeypatch):
    """A machine where drafts cost next to nothing, as for a large model with a small draft model."""
    monkeypatch.setattr(StepCosts, "step_seconds", lambda *_: 1.0)
    monkeypatch.setattr(StepCosts, "row_share", lambda *_: 0.02)
    monkeypatch.setattr(DraftModel, "_pass_share", lambda *_: 0.02)


@pytest.fixture
def only_model(cheap, monkeypatch):
    """Nothing is drafted from earlier text."""
    monkeypatch.setattr(Speculator, "draft", lambda *_: NO_DRAFT)


@pytest.fixture
def ask(parts, cheap):
    """Ask a draft model of the same weights for tokens; each text is a sequence of its own."""
    model = parts(context_length=512, **TWIN).speculator.model
    learned = Learned()

    def ask(*texts, slots=range(9), limit=4, learned=learned, index=None, other=NO_DRAFT, model=model, **named):
        asked = [
            Asked(slot, list(text), index or NgramIndex([]), limit, learned, other)
            for slot, text in zip(slots, texts, strict=False)
        ]
        drafts = model.draft(asked, len(texts), StepCosts())
        return [drafts[each.slot].tokens if each.slot in drafts else [] for each in asked]

    ask.model, ask.learned = model, learned
    return ask


def test_a_slot_forgets_what_another_sequence_left(ask):
    first = ask(TEXT)
    assert len(first[0]) == 4
    assert ask(TEXT[:40] + TEXT[10:]) != [[]]
    assert ask([1, 30, 31]) != [[]]
    assert ask(TEXT) == first
    assert ask(TEXT, slots=[2]) == first


def test_a_draft_goes_on_with_accepted_and_with_other_tokens(ask):
    index = NgramIndex([])
    [drafted] = ask(TEXT, index=index)
    accepted = ask(TEXT + drafted, index=index)
    rejected = ask([*TEXT, *drafted[:2], 99], index=index)
    assert accepted == ask(TEXT + drafted, slots=[1])
    assert rejected == ask([*TEXT, *drafted[:2], 99], slots=[2])
    # The cache holds the text and what was drafted last, but for the last token, which no pass has read.
    assert ask.model._caches[0].tokens == [*TEXT, *drafted[:2], 99, *rejected[0][:-1]]


def test_sequences_are_drafted_together(ask):
    texts = TEXT[:15], TEXT[:9], [1, 50, 51, 52]
    alone = [ask(text, slots=[3])[0] for text in texts]
    together = ask(*texts)
    # How far a draft goes depends on the number of sequences.
    assert all(map(len, together))
    assert all(each == other[: len(each)] for each, other in zip(together, alone, strict=True))


def test_a_long_text_is_read_in_parts_beside_other_sequences(ask):
    texts = [1, *range(20, 200)], [1, 40]
    drafted, steps = [[], []], 0
    index = NgramIndex([])
    while not drafted[0]:
        drafted = ask(*texts, index=index)
        assert drafted[1]  # which does not wait
        steps += 1
    assert steps > 1
    assert drafted[0] == ask(texts[0], slots=[3])[0][: len(drafted[0])]


def test_a_long_text_is_not_read_while_drafts_have_not_paid_for_the_last_one(ask):
    ask.model._balance = -1
    assert ask([1, *range(20, 20 + MISSING_TOKENS)]) == [[]]
    assert ask.model._caches == {0: ask.model._caches[0]}
    assert ask.model._caches[0].tokens == []
    assert ask([1, *range(20, 19 + MISSING_TOKENS)]) != [[]]
    ask.model.observe(Draft([1] * 4, [0] * 4, cost=0.2, worth=1.0), 4)
    assert ask([1, *range(20, 20 + MISSING_TOKENS)], slots=[1]) != [[]]


def test_a_draft_from_earlier_text_that_promises_more_is_kept(ask):
    assert ask(TEXT, other=Draft([5], [0], gain=9.0)) == [[]]
    assert ask(TEXT, other=Draft([5], [0], gain=0.1)) != [[]]


def test_nothing_is_drafted_before_a_step_was_measured(parts):
    model = parts(**TWIN).speculator.model
    model._assumed_share = 0.1  # it is as large as its target
    asked = [Asked(0, TEXT, NgramIndex([]), 4, Learned())]
    costs = StepCosts()
    assert model.draft(asked, 1, costs) == {}
    costs.observe(1, 0, 10.0)
    assert model.draft(asked, 1, costs) != {}


def test_drafts_keep_within_the_limit_the_context_and_what_they_may_cost(ask):
    assert len(ask(TEXT, limit=2)[0]) == 2
    full = (TEXT * 9)[: ask.model._context.length]
    assert len(ask(full[:-3])[0]) == 2
    assert ask(full[:-1]) == ask(full) == ask(full * 2) == [[]]
    poor = Learned()
    poor.account.steps = 0.09  # two tokens for 0.02 and 0.02 each
    assert len(ask(TEXT, learned=poor)[0]) == 2
    assert poor.account.steps == pytest.approx(0.01)


def test_a_model_whose_tokens_are_rejected_is_probed_now_and_then(ask):
    learned = Learned()
    speculator = Speculator(0, model=ask.model)
    speculator._learned[""] = learned
    lengths = []
    for _ in range(400):
        learned.account.earn(1)
        asked = Asked(0, TEXT, NgramIndex([]), 4, learned)
        drafts = ask.model.draft([asked], 1, StepCosts())
        lengths.append(len(drafts[0].tokens) if drafts else 0)
        if drafts:
            speculator.observe("", drafts[0], 0)
    assert learned.rates[MODEL_PASS] < 0.1
    assert sum(lengths[:20]) > 0
    assert 0 < sum(lengths[200:]) < 40


def test_a_failing_model_is_not_asked_again(ask, monkeypatch, caplog):
    monkeypatch.setattr(ask.model._context, "length", 10**6)
    assert ask([1] * 4000) == [[]]  # more than llama.cpp has cells for
    assert "the draft model failed" in caplog.text
    assert ask(TEXT) == [[]]


async def test_all_tokens_of_a_twin_are_accepted(load, write, only_model):
    plain, model = await load(parallel=1), await load(parallel=1, **TWIN)
    texts, end = await write(model, "hello", max_tokens=60)
    assert texts == (await write(plain, "hello", max_tokens=60))[0]
    assert end.accepted_draft_tokens == end.draft_tokens
    assert end.draft_tokens >= 0.7 * end.output_tokens


async def test_no_token_changes_the_text(load, write, cheap):
    """Also beside drafts from earlier text, and for sampled answers, which are those of their seeds."""
    plain = await load(parallel=1, context_length=512, backend_options={"speculative_decoding": False})
    model = await load(parallel=1, context_length=512, **TWIN)
    drafted = accepted = 0
    for number in range(16):
        sampling = Sampling(temperature=number % 4 / 2, seed=number, repeat_penalty=1 + number % 2 / 10)
        request = {"sampling": sampling, "top_logprobs": 1, "max_tokens": 5 + 7 * number}
        prompt = "hello wind and sun " * (1 + number % 3)
        texts, end = await write(model, prompt, **request)
        assert texts == (await write(plain, prompt, **request))[0]
        drafted, accepted = drafted + end.draft_tokens, accepted + end.accepted_draft_tokens
    assert 100 < accepted < drafted


async def test_sequences_beside_each_other_and_in_one_slot_keep_their_texts(load, write, only_model):
    """More sequences than slots, so that each slot changes hands; some are cancelled in the middle."""
    plain = await load(parallel=1, context_length=512)
    model = await load(parallel=3, context_length=512, **TWIN)
    requests = [
        {"prompt": "hello " * (1 + number % 4) + chr(97 + number), "sampling": Sampling(temperature=0.4, seed=number)}
        for number in range(9)
    ]

    async def give_up(number):
        request = SequenceRequest(prompt=f"give up {number}", sampling=GREEDY, max_tokens=500)
        async with aclosing(model.generate(request)) as events:
            for _ in range(number):
                await anext(events)

    *found, _ = await asyncio.gather(
        *(write(model, max_tokens=80, **each) for each in requests), asyncio.gather(*map(give_up, range(1, 6)))
    )
    assert sum(end.accepted_draft_tokens for _, end in found) > 50
    for each, (texts, _) in zip(requests, found, strict=True):
        assert texts == (await write(plain, max_tokens=80, **each))[0]


async def test_a_shifted_context_keeps_its_text(load, write, only_model):
    request = {"max_tokens": 330, "sampling": Sampling(temperature=1, seed=4, logit_bias={2: -1000}), "keep_tokens": 5}
    plain, model = await load(parallel=1, context_length=256), await load(parallel=1, context_length=256, **TWIN)
    texts, end = await write(model, "hello", **request)
    assert end.output_tokens > 300
    assert texts == (await write(plain, "hello", **request))[0]
    assert end.accepted_draft_tokens > 50


async def test_images_are_left_out_of_the_draft(load, write, only_model):
    eye = {"projector_paths": (str(MODELS / "chatter-eye.gguf"),)}
    plain, model = await load(parallel=1, **eye), await load(parallel=1, **eye, **TWIN)
    request = {"media": (png(1),), "max_tokens": 60}
    prompt = "look [img-0] and hello"
    texts, end = await write(model, prompt, **request)
    assert texts == (await write(plain, prompt, **request))[0]
    assert end.draft_tokens > 0
