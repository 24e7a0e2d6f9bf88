"""The Score RPC with the real engine, compared with llama.cpp by itself."""

import asyncio
import math
from contextlib import contextmanager
from functools import cache

import grpc
import llama_cpp
import numpy as np
import pytest
from tests.e2e.server import MODELS, wait_until

from puna.v1 import (
    generate_pb2,
    generate_pb2_grpc,
    options_pb2,
    rank_pb2,
    rank_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
    tokenize_pb2,
    tokenize_pb2_grpc,
)

TOLERANCE = 1e-3
QUESTION = "Question: Why is the sky blue? Think of the light of the sun, of the air that scatters it, and of the eye.\nAnswer:"
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


@pytest.fixture(scope="module", params=["wanderer", "chatter", "jinja"])
def model(server, request):
    server.upload(request.param, MODELS / f"{request.param}.gguf")
    return request.param


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture
def score(channel):
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


def test_choices(score, model):
    answer = score(model, CHOICES, QUESTION)
    for choice, result in zip(CHOICES, answer.results, strict=True):
        logprob, count, greedy = direct(model).score(QUESTION, choice)
        print(model, result.logprob - logprob, result.logprob, count)
        assert (result.token_count, result.is_greedy) == (count, greedy)


def test_perplexity_of_a_text(score, model):
    text = " ".join([QUESTION, *CHOICES] * 1)
    (result,) = score(model, [text]).results
    logprob, count, _ = direct(model).score("", text)
    print(model, result.logprob - logprob, result.logprob, count)
