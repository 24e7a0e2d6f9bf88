import asyncio
from dataclasses import replace

import pytest
from tests.core.serving.asking import until

from puna import errors
from puna.backend import InvalidRequestError, PromptTooLongError
from puna.limits import Limits
from puna.plugins import Plugin, Registry
from puna.serving.core import Serving
from puna.serving.requests import RequestOptions, ScoreRequest
from puna.settings import Settings


def asked(*continuations, context="", model="plain", **options):
    return ScoreRequest(model=model, context=context, continuations=continuations, options=RequestOptions(**options))


def values(text):
    """Return the log-probabilities that the played model gives to the characters of a text."""
    return [-float((ord(each) + 3) % 10) for each in text]


async def test_continuations_in_order(serving, backend):
    found = await serving.score(asked("b", "abc", "!!", context="x"))
    assert [each.logprob for each in found.results] == [sum(values(text)) for text in ("b", "abc", "!!")]
    assert [each.token_count for each in found.results] == [1, 3, 2]
    assert (found.usage.prompt_tokens, found.usage.output_tokens) == (7, 0)
    assert {request.max_tokens for request in backend.requests} == {0}
    assert found.timings.total_ns > 0


async def test_greedy_means_that_no_token_is_more_probable(serving):
    # The ids of these characters end with 0 and 1: nothing is more probable than the best token.
    first, second, third = (await serving.score(asked("a", "ab", "ac", context="x"))).results
    assert (first.is_greedy, second.is_greedy, third.is_greedy) == (True, True, False)


async def test_a_text_without_context_is_scored_from_its_second_token_on(serving, backend):
    (found,) = (await serving.score(asked("bcd"))).results
    assert (found.logprob, found.token_count) == (sum(values("cd")), 2)
    assert backend.requests[0].score_from == 1


async def test_bos_is_the_context_of_a_text_without_one(serving, backend):
    backend.facts["adds_bos"] = True
    (found,) = (await serving.score(asked("bcd"))).results
    assert (found.logprob, found.token_count) == (sum(values("bcd")), 3)
    assert backend.requests[0].prompt[0] == 1


async def test_eos_is_neither_context_nor_scored(serving, backend):
    backend.facts |= {"adds_eos": True, "eos_id": 2}
    (found,) = (await serving.score(asked("bc", context="x"))).results
    assert found.token_count == 2
    assert 2 not in backend.requests[0].prompt


async def test_a_token_over_the_border_belongs_to_the_continuation(serving, backend):
    (found,) = (await serving.score(asked("[b", context="x["))).results
    assert found.token_count == 2, "the token of both brackets, and the letter"
    assert len(backend.requests[0].prompt) == 3


async def test_token_ids_are_used_as_they_are(serving, backend):
    backend.facts["adds_bos"] = True
    found = await serving.score(asked((101, 102), "b", context=(50,)))
    assert [request.prompt for request in backend.requests] == [(50, 101, 102), (50, 101)]
    assert [each.logprob for each in found.results] == [-3.0, -1.0]
    await serving.score(asked((101, 102), context="x"))
    assert backend.requests[-1].prompt == (1, 123, 101, 102)


@pytest.mark.parametrize("nothing", ["", ()])
async def test_an_empty_continuation_runs_nothing(serving, backend, nothing):
    (found,) = (await serving.score(asked(nothing, context="x"))).results
    assert (found.logprob, found.token_count, found.is_greedy) == (0.0, 0, True)
    assert backend.requests == []
    assert (await serving.score(asked(context="x"))).results == ()


async def test_tokens_only_if_asked_for(serving):
    (found,) = (await serving.score(asked("ab", context="x", logprobs=True, top_logprobs=2))).results
    assert [(each.raw, each.logprob, len(each.top)) for each in found.tokens] == [(b"a", -0.0, 2), (b"b", -1.0, 2)]
    (found,) = (await serving.score(asked("ab", context="x", logprobs=True))).results
    assert [each.top for each in found.tokens] == [(), ()]
    assert (await serving.score(asked("ab", context="x"))).results[0].tokens == ()


async def test_options_reach_the_sequences(serving, backend):
    await serving.score(asked("ab", context="x", cache_salt="s", priority=3))
    assert (backend.requests[0].cache_salt, backend.requests[0].priority) == ("s", 3)


async def test_some_slots_are_left_to_others(serving, backend):
    backend.score_seconds = 0.05
    scoring = asyncio.create_task(serving.score(asked(*"abcdefgh", context="x")))
    most = 0
    while not scoring.done():
        most = max(most, backend.running)
        await asyncio.sleep(0.01)
    assert most == 2, "half of the four slots"
    assert len(scoring.result().results) == 8


async def test_cancelling_ends_all_sequences(serving, backend):
    backend.score_seconds = 60
    scoring = asyncio.create_task(serving.score(asked(*"abcdefgh", context="x")))
    await until(lambda: backend.running == 2)
    scoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scoring
    assert backend.running == 0
    assert len(backend.requests) == 2


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (InvalidRequestError("no such token"), errors.EngineRefusedError),
        (PromptTooLongError(9, 8), errors.ContextOverflowError),
    ],
)
async def test_an_error_of_one_sequence_ends_all(serving, backend, raised, error):
    backend.score_seconds = 0.05
    backend.play()
    backend.play(raised)
    with pytest.raises(error):
        await serving.score(asked(*"abcdefgh", context="x"))
    assert backend.running == 0
    assert len(backend.requests) < 8


@pytest.mark.parametrize(
    "request_",
    [
        asked("a", "b" * 5000, context="x"),
        asked("a", tuple([100] * 5000), context="x"),
        asked("a", "b" * 600_000, context="x"),
        asked("a", "b", context="x" * 4096),
    ],
)
async def test_a_continuation_that_does_not_fit_is_named(serving, backend, request_):
    with pytest.raises(errors.ContextOverflowError) as raised:
        await serving.score(request_)
    assert raised.value.info["field"] in ("continuations[0]", "continuations[1]")
    assert backend.requests == [], "nothing is evaluated before all fit"


async def test_a_context_that_does_not_fit_is_named(serving):
    with pytest.raises(errors.ContextOverflowError) as raised:
        await serving.score(asked("a", context="x" * 600_000))
    assert raised.value.info["field"] == "context"


async def test_a_context_of_unknown_length_bounds_nothing(serving, backend):
    backend.facts["context_length"] = 0
    assert (await serving.score(asked("b" * 600_000, context="x"))).results[0].token_count == 600_000


async def test_a_prompt_may_fill_the_context(serving):
    assert (await serving.score(asked("b" * 4095, context="x"))).results[0].token_count == 4095


async def test_an_answer_has_a_largest_size(serving, backend):
    serving.access.settings = replace(serving.access.settings, limits=Limits(max_score_logprobs=8))
    assert len((await serving.score(asked("abcd", context="x", logprobs=True, top_logprobs=1))).results) == 1
    with pytest.raises(errors.TooLargeError, match="PUNA_MAX_SCORE_LOGPROBS"):
        await serving.score(asked("abc", "abc", context="x", logprobs=True, top_logprobs=1))
    assert (await serving.score(asked("abc" * 9, context="x"))).results[0].token_count == 27, "sums have no limit"


async def test_a_model_that_does_not_generate(serving):
    with pytest.raises(errors.CapabilityMissingError, match="does not support scoring"):
        await serving.score(asked("a", model="embedder"))


async def test_a_model_without_tokenizer_scores_token_ids_alone(serving, backend):
    backend.facts["tokenizer"] = False
    assert (await serving.score(asked((101,), context=(100,)))).results[0].logprob == -1.0
    with pytest.raises(errors.UnsupportedOperationError, match="no tokenizer"):
        await serving.score(asked("a", context=(100,)))


async def test_a_backend_that_cannot_is_named(serving, stocked, registry, backend):
    manifest = registry.get("played").manifest
    manifest = replace(manifest, capabilities=replace(manifest.capabilities, prompt_logprobs=False))
    other = Serving(
        stocked, serving.access._pool, Settings(), Registry(lambda: [Plugin(name="played", manifest=manifest)])
    )
    with pytest.raises(errors.DemandUnsupportedError, match="'played' does not support log-probabilities of a prompt"):
        await other.score(asked("a", context="x"))
    assert backend.specs == [], "no model is loaded for it"
