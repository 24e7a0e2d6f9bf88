from dataclasses import replace

import pytest

from puna.backend import (
    ChatDelta,
    ChatInput,
    DeviceMemory,
    DocumentScores,
    Embedding,
    Finish,
    MemoryEstimate,
    ModelFacts,
    Prefill,
    PromptLogprobs,
    SequenceRequest,
    TextDelta,
)
from puna.backend import TokenLogprob as Logprob
from puna.errors import BackendFailedError
from puna.runtime.host_answers import (
    COUNTS,
    EventCheck,
    check_estimate,
    check_facts,
    check_pieces,
    check_scores,
    check_tokens,
    check_vectors,
)

FACTS = ModelFacts(context_length=8)
TEXT = SequenceRequest(prompt="a", stop=("x",))
SCORED = SequenceRequest(prompt=(5, 6, 7), score_from=1)
CHAT = SequenceRequest(prompt="", chat=ChatInput(messages=()))
END = Finish(reason="stop")
STOPPED = Finish(reason="stop", stop_sequence="x")


def scores(*tokens):
    return PromptLogprobs(tuple(Logprob(b"a", token, -0.5) for token in tokens))


def test_possible_facts_pass():
    # A context length of 0 is unknown.
    for facts in (FACTS, replace(FACTS, context_length=0, bos_id=-1, embedding_length=-1, size_bytes=2**40)):
        assert check_facts(facts) is facts


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_length", -1),
        ("parallel", 0),
        ("parallel", -4),
        ("size_bytes", -1),
        ("vram_bytes", -1),
        ("kv_cache_tokens", -1),
        ("kv_cache_type", "x" * 65),
        ("kv_cache_type", "q8_0\nq4_0"),
        ("embedding_length", -2),
        ("embedding_tokens", -1),
        ("bos_id", -2),
        ("eos_id", -2),
        ("bos_text", "x" * 5000),
        ("eos_text", "x" * 5000),
    ],
)
def test_impossible_facts_are_named(name, value):
    with pytest.raises(BackendFailedError, match=name):
        check_facts(replace(FACTS, **{name: value}))


def check_all(request, *events):
    checker = EventCheck(request)
    for event in events:
        checker.check(event)


@pytest.mark.parametrize(
    ("request_", "events"),
    [
        (TEXT, (END,)),
        (
            TEXT,
            (Prefill(0, 3), Prefill(3, 3), TextDelta("a"), TextDelta("b"), Finish(reason="stop", stop_sequence="x")),
        ),
        (TEXT, (TextDelta("a", (Logprob(b"a", -1, -0.5, (Logprob(b"b", 3, -90.0),)),)), END)),
        (CHAT, (Prefill(1, 1), ChatDelta(content="a"), ChatDelta(thinking="b"), END)),
        (SCORED, (scores(6), Prefill(1, 1), scores(7), TextDelta("a"), END)),
    ],
)
def test_events_of_the_contract_pass(request_, events):
    check_all(request_, *events)


@pytest.mark.parametrize(
    ("request_", "events", "text"),
    [
        (TEXT, (TextDelta("a"), Prefill(1, 1)), "the prefill after text"),
        (CHAT, (ChatDelta(content="a"), Prefill(1, 1)), "the prefill after text"),
        (TEXT, (Prefill(-1, 1),), "a negative number of tokens"),
        (TEXT, (ChatDelta(content="a"),), "a ChatDelta where a TextDelta belongs"),
        (CHAT, (TextDelta("a"),), "a TextDelta where a ChatDelta belongs"),
        (TEXT, (scores(6),), "a PromptLogprobs where a TextDelta belongs"),
        (SCORED, (scores(6), TextDelta("a"), scores(7)), "log-probabilities of the prompt after text"),
        (SCORED, (scores(7, 6),), "those of other tokens"),
        (SCORED, (scores(6, 7, 8),), "those of other tokens"),
        (SCORED, (scores(6), END), "1 log-probabilities of the prompt are missing"),
        (SCORED, (END,), "2 log-probabilities of the prompt are missing"),
        (SCORED, (PromptLogprobs((Logprob(b"a", 6, float("-inf")),)),), "log-probability of a token is -inf"),
        (TEXT, (Finish(reason="stop", stop_sequence="y"),), "a stop string that the request does not have"),
        (TEXT, (TextDelta("a", (Logprob(b"a", 1, float("nan")),)),), "log-probability of a token is nan"),
        (TEXT, (TextDelta("a", (Logprob(b"a", 1, 0.0, (Logprob(b"a", -2, 0.0),)),)),), "the id of a token is -2"),
        *((TEXT, (Finish(reason="stop", **{name: -1}),), name) for name in COUNTS),
    ],
)
def test_events_that_break_the_contract_are_named(request_, events, text):
    with pytest.raises(BackendFailedError, match=text):
        check_all(request_, *events)


def vectors(*lengths):
    return [Embedding([0.5] * length, 1) for length in lengths]


def test_answers_that_fit_pass():
    assert check_tokens([0, 2**31 - 1]) == [0, 2**31 - 1]
    assert check_tokens([]) == []
    assert check_pieces([b"", b"a"], 2) == [b"", b"a"]
    assert check_scores(DocumentScores((0.5, -1e30), 9), 2).token_count == 9
    assert len(check_vectors(vectors(3, 3), 2, 3)) == 2
    assert len(check_vectors(vectors(3, 3), 2, 0)) == 2
    assert len(check_vectors(vectors(3, 3), 2, -1)) == 2


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_tokens([1, -1]),
        lambda: check_pieces([b"a"], 2),
        lambda: check_scores(DocumentScores([0.5]), 2),
        lambda: check_scores(DocumentScores([float("inf")]), 1),
        lambda: check_scores(DocumentScores([0.5], -1), 1),
        lambda: check_vectors(vectors(3), 2, 3),
        lambda: check_vectors(vectors(3, 3, 3), 2, 3),
        lambda: check_vectors(vectors(3, 2), 2, 0),
        lambda: check_vectors(vectors(2, 2), 2, 3),
        lambda: check_vectors([Embedding([0.5], -1)], 1, 1),
    ],
)
def test_answers_that_do_not_fit_are_refused(check):
    with pytest.raises(BackendFailedError, match="the backend breaks its contract"):
        check()


def test_a_possible_estimate_passes():
    devices = (DeviceMemory(weights_bytes=2**40), DeviceMemory(device="CUDA0", free_bytes=1))
    estimate = MemoryEstimate(context_length=8, devices=devices, process_bytes=5)
    assert check_estimate(estimate) is estimate


@pytest.mark.parametrize(
    "wrong",
    [
        {"parallel": 0},
        {"context_length": -1},
        {"process_bytes": -1},
        {"devices": (DeviceMemory(weights_bytes=-1),)},
        {"devices": (DeviceMemory(kv_cache_bytes=1 << 62),)},
        {"devices": (DeviceMemory(device="CUDA0\x1b[2J"),)},
        {"devices": (DeviceMemory(),) * 129},
    ],
)
def test_an_impossible_estimate_fails(wrong):
    with pytest.raises(BackendFailedError, match="breaks its contract"):
        check_estimate(replace(MemoryEstimate(context_length=8), **wrong))
