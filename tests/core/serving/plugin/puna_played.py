"""A backend that plays what a test tells it, in the test's own process, and remembers what it was asked.

A token is a byte: its id is the byte plus 3; 1 begins and 2 ends a text.
"""

import asyncio
from collections import deque

from puna.backend import (
    Backend,
    BackendError,
    DocumentScores,
    Embedding,
    Finish,
    InvalidRequestError,
    LoadedModel,
    ModelFacts,
    Prefill,
    PromptLogprobs,
    PromptTooLongError,
    TextDelta,
    TokenLogprob,
    UnsupportedError,
)

BOS, EOS, FIRST = 1, 2, 3


class Played(LoadedModel):
    def __init__(self, backend, spec):
        self._backend = backend
        self._facts = ModelFacts(
            **{"context_length": min(spec.context_length, 8192), "parallel": spec.parallel or 4, "bos_id": BOS}
            | backend.facts
        )

    @property
    def facts(self):
        return self._facts

    async def generate(self, request):
        """Play the next part: texts are pieces, numbers seconds to wait, errors are raised, events come as they are."""
        backend = self._backend
        if request.max_tokens == 0 and request.constraint:  # a look whether it would be refused
            yield Finish(reason="length", prompt_tokens=1, output_tokens=0, prompt_eval_ns=1, eval_ns=0)
            return
        backend.requests.append(request)
        backend.running += 1
        said = 0
        tokens = len(self._tokens(request.prompt)) if isinstance(request.prompt, str) else len(request.prompt)
        try:
            if tokens > (self._facts.context_length or tokens):
                raise PromptTooLongError(tokens, self._facts.context_length)
            if request.score_from is not None:
                # Two events, as a backend sends them that evaluates a prompt in parts.
                scored = [self._score(token, request) for token in request.prompt[request.score_from :]]
                yield PromptLogprobs(tuple(scored[:1]))
                await asyncio.sleep(backend.score_seconds)
                if scored[1:]:
                    yield PromptLogprobs(tuple(scored[1:]))
            for step in backend.parts.popleft() if backend.parts else ():
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, int | float):
                    await asyncio.sleep(step)
                    continue
                if isinstance(step, str):
                    if said >= request.max_tokens:
                        yield Finish(reason="length", prompt_tokens=tokens, output_tokens=said)
                        return
                    said += 1
                    step = TextDelta(step, self._logprobs(step, request))
                yield step
                if isinstance(step, Finish):
                    return
            yield Finish(reason="stop", prompt_tokens=tokens, output_tokens=said + 1, prompt_eval_ns=5, eval_ns=7)
        finally:
            backend.running -= 1

    def _logprobs(self, text, request):
        if request.top_logprobs is None:
            return ()
        entry = TokenLogprob(text.encode(), 7, -0.5)
        return (TokenLogprob(text.encode(), 7, -0.5, (entry,) * request.top_logprobs),)

    def _score(self, token, request):
        """The logarithm is minus the last digit of the id. The most probable token has the logarithm -1."""
        best = TokenLogprob(b"!", ord("!") + FIRST, -1.0)
        raw = bytes([token - FIRST]) if token >= FIRST else b""
        return TokenLogprob(raw, token, -float(token % 10), (best,) * (request.top_logprobs or 0))

    def _tokens(self, text):
        # Two brackets are one token, the last one, so that a token can reach over the border of two texts.
        return [byte + FIRST for byte in text.encode().replace(b"[[", b"\xff")]

    async def tokenize(self, text, *, add_special, parse_special):
        self._backend.tokenized.append(text)
        begin = [BOS] if add_special and self._facts.adds_bos else []
        end = [EOS] if add_special and self._facts.adds_eos else []
        return begin + self._tokens(text) + end

    async def detokenize(self, tokens, *, special):
        if any(not 0 < token < FIRST + 256 for token in tokens):
            raise InvalidRequestError("no such token")
        return [bytes([token - FIRST]) if token >= FIRST else b"" for token in tokens]

    async def embed(self, inputs, *, raw=False):
        self._backend.embedded += inputs
        if not self._facts.embedding_length:
            raise UnsupportedError("this model does not support embeddings")
        for text in inputs:
            if len(text) + 2 > (self._facts.context_length or len(text) + 2):
                raise PromptTooLongError(len(text) + 2, self._facts.context_length)
        return [Embedding([3.0, 4.0, 0.0] if raw else [0.6, 0.8, 0.0], len(text) + 2) for text in inputs]

    async def rerank(self, query, documents):
        if not self._backend.ranks:
            raise UnsupportedError("this model does not support reranking")
        lengths = [len(query) + len(document) + 3 for document in documents]
        if self._facts.tokenizer and max(lengths, default=0) > self._facts.context_length:
            raise PromptTooLongError(max(lengths), self._facts.context_length)
        return DocumentScores([float(query in document) for document in documents], sum(lengths))

    async def aclose(self):
        self._backend.closed += 1


class PlayedBackend(Backend):
    def __init__(self):
        self.facts = {}
        self.parts = deque()
        self.requests = []
        self.specs = []
        self.tokenized = []
        self.embedded = []
        self.ranks = False
        self.running = 0
        self.closed = 0
        self.load_error = None
        self.load_seconds = 0
        self.score_seconds = 0
        """Seconds between the two events of a scored prompt."""

    def play(self, *steps):
        """Add what the next sequence does."""
        self.parts.append(steps)

    async def load(self, spec, report):
        self.specs.append(spec)
        report(0.5)
        await asyncio.sleep(self.load_seconds)
        if self.load_error is not None:
            raise self.load_error
        return Played(self, spec)


__all__ = ["BackendError", "PlayedBackend", "Prefill"]
