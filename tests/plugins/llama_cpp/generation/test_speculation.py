import json
import random

import pytest

from puna.backend import Constraint, Sampling
from puna_llama_cpp.generation.draft_policy import HISTORY, Draft
from puna_llama_cpp.generation.ngram_index import NgramIndex
from puna_llama_cpp.generation.speculation import Speculator

WORDS = list(range(100, 140))


@pytest.fixture
def speculator():
    """A speculator on a machine where draft tokens cost next to nothing."""
    speculator = Speculator(10_000)
    set_cost(speculator, 0)
    return speculator


def set_cost(speculator, row):
    """Make a draft token cost this much of a step."""
    speculator.costs.observe(1, 0, 1.0)
    for _ in range(20):
        speculator.costs.observe(1, 1, 1.0 + row)


def drafted(speculator, tokens, salt="", limit=7):
    return speculator.draft(NgramIndex(list(tokens)), salt, 1, limit).tokens


def test_what_followed_before_is_drafted(speculator):
    assert drafted(speculator, [1, 2, 3, 4, 5, 1, 2, 3])[:2] == [4, 5]


def test_a_repetition_goes_on(speculator):
    assert drafted(speculator, [5, 6, 5, 6, 5, 6], limit=4) == [5, 6, 5, 6]


def test_nothing_is_drafted_of_something_new(speculator):
    assert drafted(speculator, [1, 2, 3, 4, 5]) == []
    assert drafted(speculator, [1, 2]) == []


def test_images_are_not_drafted(speculator):
    assert drafted(speculator, [1, 2, 3, 4, -7, 1, 2, 3]) == [4]


def test_the_longest_common_text_counts(speculator):
    longer = [20, 21, 22, 23, 1, 2, 3]
    assert drafted(speculator, [*longer, 8, 1, 2, 3, 9, *longer], limit=1) == [8]


def test_the_most_frequent_token_is_drafted_and_among_equals_the_latest(speculator):
    for token in (8, 9, 8, 7):
        speculator.remember("", [1, 2, 3, token, 0], 2)
    assert drafted(speculator, [1, 2, 3], limit=1) == [8]
    speculator.remember("", [1, 2, 3, 7, 0], 2)
    assert drafted(speculator, [1, 2, 3], limit=1) == [7]


def test_an_earlier_answer_is_drafted_from_its_first_token_on(speculator):
    prompt = [1, 2, 3, 4]
    speculator.remember("", [*prompt, *WORDS], len(WORDS))
    begun = drafted(speculator, [50, *prompt], limit=31)
    assert begun
    assert begun == WORDS[: len(begun)]
    assert drafted(speculator, [50, *prompt, *WORDS[:30]], limit=31) == WORDS[30:]  # and never beyond its end


def test_an_answer_is_drafted_only_for_requests_with_its_salt(speculator):
    speculator.remember("a", [1, 2, 3, *WORDS], len(WORDS))
    assert drafted(speculator, [1, 2, 3], salt="b") == drafted(speculator, [1, 2, 3]) == []
    assert drafted(speculator, [1, 2, 3], salt="a", limit=1) == WORDS[:1]


def test_a_prompt_without_an_answer_is_not_kept(speculator):
    speculator.remember("", [1, 2, 3, *WORDS], 0)
    assert drafted(speculator, [1, 2, 3]) == []


def test_forced_text_is_drafted_and_goes_on_with_what_followed_it():
    speculator = Speculator(10_000, lambda text: [ord(letter) for letter in text])
    set_cost(speculator, 0)
    index = NgramIndex([1, 2, 3])
    assert speculator.draft(index, "", 1, 31, b"name").tokens == [*b"name"]
    assert speculator.draft(index, "", 1, 2, b"name").tokens == [*b"na"]
    assert speculator.draft(index, "", 1, 31, "né".encode()[:2]).tokens == [*b"n"]  # cut within a character
    speculator.remember("", [1, 2, 3, *b"name", 200, 0], 6)
    speculator.remember("", [1, 2, 3, *b"none", 201, 0], 6)
    assert speculator.draft(index, "", 1, 5, b"name").tokens == [*b"name", 200]


async def test_drafts_of_forced_text_change_no_answer(load, write):
    schema = {"type": "object", "additionalProperties": False, "properties": {}}
    for name in ("identification", "surrounding circumstances", "recommendation"):
        schema["properties"][name] = {"enum": ["approximately seven", "approximately nine", 7]}
    schema["required"] = list(schema["properties"])
    constraint = Constraint("json_schema", json.dumps(schema))
    model = await load(parallel=1)
    plain = await load(parallel=1, backend_options={"speculative_decoding": False})
    accepted = 0
    for number in range(6):
        request = {"sampling": Sampling(temperature=number / 4, seed=number), "max_tokens": 400, "top_logprobs": 2}
        request |= {"constraint": constraint, "cache_salt": str(number)}
        texts, end = await write(model, "hello", **request)
        assert (texts, end.reason) == ((await write(plain, "hello", **request))[0], "stop")
        assert list(json.loads("".join(texts))) == schema["required"]
        accepted += end.accepted_draft_tokens
    assert accepted > 20


def test_a_draft_goes_as_far_as_it_pays():
    lengths = []
    for row in (0.9, 0.3, 0.1, 0.02):
        speculator = Speculator(0)
        set_cost(speculator, row)
        lengths.append(len(drafted(speculator, [*WORDS, 1, *WORDS], limit=31)))
    assert lengths == sorted(lengths)
    assert lengths[0] < 3
    assert lengths[-1] > 15


@pytest.mark.parametrize("row", [0.02, 0.25, 1.0])
def test_text_that_never_repeats_costs_next_to_nothing(row):
    """Every place that is found goes on in another way than the text."""
    draw = random.Random(4)
    speculator = Speculator(10_000)
    set_cost(speculator, row)
    steps = lost = 0
    for _ in range(20):
        tokens = []
        index = NgramIndex(tokens)
        for _ in range(300):
            # Half of the time the last three tokens have occurred before.
            tokens += draw.choice(([1, 2, 3], [draw.randrange(1000, 9000)]))
            draft = speculator.draft(index, "", 1, 31)
            speculator.observe("", draft, 0)
            lost += row * len(draft.tokens)
            steps += 1
        speculator.remember("", tokens, len(tokens))
    assert lost / steps < 0.02


@pytest.mark.parametrize("row", [0.02, 0.25, 1.0])
@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.8, "first all, then none", "all or none in turn"])
@pytest.mark.parametrize("decoding", [1, 3])
def test_however_few_drafts_are_accepted_they_cost_at_most_two_steps_and_a_hundredth(row, share, decoding):
    """By predicted costs. So from 200 tokens on, answers take at most 2 % longer than without drafts."""
    draw = random.Random(5)
    speculator = Speculator(10_000)
    set_cost(speculator, row)
    tokens, lost, most, drafted = [1, 2, 3], 0.0, 0.0, 0
    index = NgramIndex(tokens)
    while len(tokens) < 3000:
        # The last three tokens have always occurred before.
        tokens += [1, 2, 3] if tokens[-1] != 3 else []
        draft = speculator.draft(index, "", decoding, 31)
        turn = len(tokens) // 300 % 2
        likely = {"first all, then none": len(tokens) < 1000, "all or none in turn": turn}.get(share, share)
        accepted = 0
        while accepted < len(draft.tokens) and draw.random() < likely:
            accepted += 1
        speculator.observe("", draft, accepted)
        tokens += [*draft.tokens[:accepted], draw.randrange(1000, 9000)]
        drafted += len(draft.tokens)
        lost += row * len(draft.tokens) - accepted / decoding
        most = max(most, lost - len(tokens) / 100 / decoding)
    assert most <= 2
    assert drafted or row * decoding >= 1


def test_an_account_pays_for_no_more_than_it_has(speculator):
    set_cost(speculator, 0.5)
    speculator.learned("").account.steps = 1.2
    assert len(drafted(speculator, [*WORDS, 1, *WORDS], limit=31)) == 2
    assert drafted(speculator, [*WORDS, 1, *WORDS], limit=31) == []
    speculator.observe("", Draft([1, 2], [0, 0], worth=1.0), 2)
    assert len(drafted(speculator, [*WORDS, 1, *WORDS], limit=31)) >= 2


def test_a_text_that_leaves_another_for_a_few_tokens_is_drafted_from_there_on(speculator):
    """As a call of the same tool with another argument."""
    earlier = [*WORDS[:10], 500, *WORDS[10:20]]
    tokens = [*earlier, 900, *WORDS[:10]]
    index = NgramIndex(tokens)
    assert speculator.draft(index, "", 1, 1).tokens == [500]
    for token in (600, 601):
        tokens.append(token)
        assert speculator.draft(index, "", 1, 5).tokens == []
    tokens.append(WORDS[10])
    drafted = speculator.draft(index, "", 1, 5).tokens
    assert drafted
    assert drafted == WORDS[11 : 11 + len(drafted)]


def test_a_text_that_stays_away_is_not_drafted_from_there(speculator):
    tokens = [*WORDS[:10], 500, *range(700, 760), WORDS[20], *WORDS[:10], *range(800, 808)]
    index = NgramIndex(tokens)
    for length in range(len(tokens) - 8, len(tokens) + 1):
        index = NgramIndex(tokens[:length]) if length == len(tokens) - 8 else index
        index.tokens[:] = tokens[:length]
        speculator.draft(index, "", 1, 5)
    index.tokens.append(WORDS[20])  # too far behind the place that was left
    assert speculator.draft(index, "", 1, 5).tokens == []


def test_places_that_agree_are_counted_by_themselves(speculator):
    """Single places that were wrong take nothing from the trust in text of which several agree."""
    tokens = [1, 2, 3, 4, 5, 6]
    for _ in range(60):
        speculator.observe("", Draft([7], [HISTORY]), 0)
    speculator.remember("", [*tokens, *WORDS], len(WORDS))
    set_cost(speculator, 0.1)
    assert drafted(speculator, tokens[:3], limit=31) == []
    speculator.remember("", [*tokens, *WORDS], len(WORDS))
    assert drafted(speculator, tokens[:3], limit=31)[:2] == [4, 5]


async def test_drafts_change_nothing_but_the_number_of_steps(load, write):
    """The text is the same with and without drafts: sampled or greedy, with log-probabilities and with a limit."""
    draw = random.Random(3)
    asked = []
    for number in range(24):
        words = "".join(draw.choice("abcdefgh ") for _ in range(20))
        sampling = Sampling(temperature=draw.choice((0, 0.3, 1)), seed=number, repeat_penalty=draw.choice((1.0, 1.1)))
        asked.append((words * 3, {"sampling": sampling, "max_tokens": draw.choice((7, 60)), "top_logprobs": 1}))
    asked += asked[:12]  # answered before
    model = await load(context_length=512, parallel=1)
    plain = await load(context_length=512, parallel=1, backend_options={"speculative_decoding": False})
    accepted = []
    for prompt, request in asked:
        texts, end = await write(model, prompt, **request)
        accepted.append(end.accepted_draft_tokens)
        expected, plain_end = await write(plain, prompt, **request)
        assert (texts, end.reason, end.output_tokens) == (expected, plain_end.reason, plain_end.output_tokens)
        assert plain_end.draft_tokens == 0
    assert sum(accepted[:24]) > 0
    assert sum(accepted[24:]) > sum(accepted[:12])  # the answers given before


@pytest.mark.parametrize(("history", "drafts"), [(0, False), (10_000, True)])
def test_a_history_of_no_tokens_leaves_the_text_of_the_request(parts, history, drafts):
    speculator = parts(backend_options={"draft_history_tokens": history}).speculator
    speculator.remember("", [1, 2, 3, *WORDS], len(WORDS))
    assert bool(drafted(speculator, [1, 2, 3])) == drafts
    assert drafted(speculator, [5, 6, 7, 4, 5, 6, 7])[:1] == [4]
