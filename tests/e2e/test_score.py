"""The Score RPC with the real engine, compared with llama.cpp by itself."""

from functools import cache

import grpc
import llama_cpp
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from tests.e2e.server import MODELS, wait_until

from puna_client.v1 import (
    generate_pb2,
    generate_pb2_grpc,
    options_pb2,
    rank_pb2,
    rank_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
)

TOLERANCE = 1e-3
QUESTION = (
    "Question: Why is the sky blue? Think of the light of the sun, of the air that scatters it, and of the eye.\n"
    "Answer:"
)
CHOICES = (" Because the air scatters blue light.", " Because of the sea", " I do not know!", " 42", " Because the air")


class Direct:
    """A model that llama.cpp evaluates by itself, all tokens with their logits."""

    def __init__(self, name):
        self._model = llama_cpp.Llama(
            str(MODELS / f"{name}.gguf"), n_ctx=1024, logits_all=True, flash_attn=True, n_threads=1, verbose=False
        )

    def tokens(self, text):
        return self._model.tokenize(text.encode(), add_bos=True, special=True)

    def logprobs(self, tokens):
        """Return the log-probabilities of all tokens at each position: row i is for the token at index i + 1."""
        self._model.reset()
        self._model.eval(tokens)
        logits = np.array(self._model.scores[: len(tokens)], np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    def score(self, context, continuation):
        """Return the sum of the log-probabilities of a continuation, its number of tokens, and whether it is greedy."""
        before, tokens = self.tokens(context), self.tokens(context + continuation)
        start = next((i for i, (a, b) in enumerate(zip(before, tokens, strict=False)) if a != b), len(before))
        start = max(start, 1)
        rows = self.logprobs(tokens)[start - 1 : len(tokens) - 1]
        scored = tokens[start:]
        greedy = [int(each) for each in rows.argmax(axis=1)] == scored
        return sum(row[token] for row, token in zip(rows, scored, strict=True)), len(scored), greedy


direct = cache(Direct)


@pytest.fixture(scope="module", params=["wanderer", "jinja"])
def model(server, request):
    server.upload(request.param, MODELS / f"{request.param}.gguf")
    return request.param


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture
def score(channel):
    """Score continuations, given as texts or token ids."""
    stub = rank_pb2_grpc.RankServiceStub(channel)

    def score(model, continuations, context="", timeout=60, **options):
        request = rank_pb2.ScoreRequest(model=model, options=options_pb2.RequestOptions(**options))
        request.options.runtime.context_length = 512
        for each in continuations:
            request.continuations.add(**{"text": each} if isinstance(each, str) else {"token_ids": {"ids": each}})
        if isinstance(context, str):
            request.text = context
        else:
            request.token_ids.ids.extend(context)
        return stub.Score(request, timeout=timeout)

    return score


def reason_of(error):
    (packed,) = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(packed).details[0].Unpack(info)
    return info


def test_choices(score, model):
    answer = score(model, CHOICES, QUESTION)
    for choice, result in zip(CHOICES, answer.results, strict=True):
        logprob, count, greedy = direct(model).score(QUESTION, choice)
        assert result.logprob == pytest.approx(logprob, abs=TOLERANCE)
        assert (result.token_count, result.is_greedy) == (count, greedy)
    # All of it is cached now, unless the model is recurrent.
    again = score(model, CHOICES, QUESTION)
    for one, other in zip(again.results, answer.results, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=TOLERANCE)


def test_the_context_stays_in_the_cache(score):
    assert score("scripted", CHOICES, QUESTION).usage.cached_prompt_tokens == 0
    again = score("scripted", CHOICES[1:2], QUESTION).usage
    assert again.cached_prompt_tokens >= again.prompt_tokens - len(CHOICES[1]) - 2


def test_perplexity_of_a_text(score, model):
    text = " ".join([QUESTION, *CHOICES])
    (result,) = score(model, [text]).results
    logprob, count, _ = direct(model).score("", text)
    assert result.logprob == pytest.approx(logprob, abs=TOLERANCE)
    assert result.token_count == count


def test_token_ids_score_like_their_text(score, model):
    before, whole = (direct(model).tokens(each) for each in (QUESTION, QUESTION + CHOICES[0]))
    assert whole[: len(before)] == before
    (by_ids,) = score(model, [whole[len(before) :]], before).results
    (by_text,) = score(model, CHOICES[:1], QUESTION).results
    assert by_ids.logprob == pytest.approx(by_text.logprob, abs=TOLERANCE)
    assert by_ids.token_count == by_text.token_count


def test_tokens_and_alternatives(score):
    (result,) = score("llamita", ["blue like the sea"], "The sky is", logprobs=True, top_logprobs=3).results
    assert b"".join(each.raw for each in result.tokens) == b"blue like the sea"
    assert len(result.tokens) == result.token_count
    assert sum(each.logprob for each in result.tokens) == pytest.approx(result.logprob, abs=TOLERANCE)
    for each in result.tokens:
        assert [other.logprob for other in each.top] == sorted((o.logprob for o in each.top), reverse=True)
        assert len(each.top) == 3
    assert not score("llamita", [" blue"], "The sky is").results[0].tokens


def test_what_greedy_decoding_writes_is_greedy(score, channel, model):
    context = direct(model).tokens("Why is the sky blue?")
    request = generate_pb2.GenerateRequest(model=model, token_ids={"ids": context}, raw=True)
    request.options.runtime.context_length = 512
    request.options.sampling.temperature = 0
    request.options.sampling.max_output_tokens = 6
    request.options.logprobs = True
    answer = generate_pb2_grpc.GenerateServiceStub(channel).Generate(request, timeout=60)
    written = [each.token_id for each in answer.logprobs]
    right, wrong = score(model, [written, [*written[:-1], written[-1] - 1]], context).results
    assert right.is_greedy
    assert not wrong.is_greedy
    assert right.logprob > wrong.logprob


def test_a_continuation_that_does_not_fit(score):
    with pytest.raises(grpc.RpcError) as caught:
        score("llamita", ["short", "word " * 900], "A long text:")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = reason_of(caught.value)
    assert (info.reason, info.metadata["context_length"]) == ("CONTEXT_OVERFLOW", "512")
    assert "continuations[1]" in str(caught.value.trailing_metadata())
    assert int(info.metadata["prompt_tokens"]) > 900


def test_a_prompt_may_fill_the_context(score):
    full = [5] * 512
    assert score("llamita", [full[3:]], full[:3]).results[0].token_count == 509
    with pytest.raises(grpc.RpcError) as caught:
        score("llamita", [full], full[:1])
    assert reason_of(caught.value).reason == "CONTEXT_OVERFLOW"


def test_a_model_that_does_not_generate(score):
    with pytest.raises(grpc.RpcError) as caught:
        score("embedder", ["a"], "b")
    assert (caught.value.code(), reason_of(caught.value).reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "CAPABILITY_MISSING",
    )


def test_a_deadline_ends_all_sequences(score, channel):
    # Each is evaluated anew, since nothing of it is cached.
    long = [[token % 200 + 5 for token in range(number, number + 500)] for number in range(600)]
    with pytest.raises(grpc.RpcError) as caught:
        score("llamita", long, [1], timeout=2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    stub = server_pb2_grpc.ServerServiceStub(channel)
    wait_until(lambda: not stub.ListRequests(server_pb2.ListRequestsRequest(), timeout=10).requests, 5)
    assert score("llamita", [" blue"], "The sky is", timeout=10).results[0].token_count > 0


def test_a_harness_scores_by_echo(server, score, model):
    """As lm-evaluation-harness does it: token ids in, and the log-probabilities of all but the last token out."""
    before, whole = (direct(model).tokens(each) for each in (QUESTION, QUESTION + CHOICES[0]))
    body = {"model": model, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1234}
    answer = server.json("/v1/completions", body | {"prompt": [whole, before]})
    (expected,) = score(model, [whole[len(before) :]], before).results
    first, second = answer["choices"]
    found = first["logprobs"]["token_logprobs"][len(before) : -1]
    tops = first["logprobs"]["top_logprobs"][len(before) : -1]
    assert sum(found) == pytest.approx(expected.logprob, abs=TOLERANCE)
    assert all(each == max(top.values()) for each, top in zip(found, tops, strict=True)) == expected.is_greedy
    assert first["text"].startswith(QUESTION + CHOICES[0])
    assert second["text"].startswith(QUESTION)
    lengths = [len(each["logprobs"]["tokens"]) for each in (first, second)]
    assert lengths == [len(whole) + 1, len(before) + 1]
    # Offsets divide the text, so the continuation is found by the length of the context, too.
    start = next(i for i, offset in enumerate(first["logprobs"]["text_offset"]) if offset >= len(QUESTION))
    assert start == len(before)
    # A text gives the same.
    by_text = server.json("/v1/completions", body | {"prompt": QUESTION + CHOICES[0]})["choices"][0]["logprobs"]
    assert by_text["tokens"] == first["logprobs"]["tokens"]
