"""A model at an upstream."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from puna.backend import (
    Embedding,
    Finish,
    LoadedModel,
    ModelFacts,
    SequenceEvent,
    SequenceRequest,
    UnsupportedError,
)
from puna_openai import embeddings, requests
from puna_openai.answers import AnswerReader
from puna_openai.client import UpstreamClient
from puna_openai.failures import FAILURES, CutError, translated
from puna_openai.upstream import Upstream


class OpenAIModel(LoadedModel):
    """A model at an upstream. Nothing is loaded here: the first request shows whether the upstream has it."""

    def __init__(self, upstream: Upstream, model: str, client: UpstreamClient) -> None:
        self._upstream = upstream
        self._model = model
        self._client = client
        can = upstream.capabilities
        self._facts = ModelFacts(
            context_length=upstream.context_length,
            parallel=upstream.parallel,
            tokenizer=False,
            # The length of the vectors is known only once there is one.
            embedding_length=-1 if "embedding" in can else 0,
            vision="vision" in can,
            audio="audio" in can,
        )

    @property
    def facts(self) -> ModelFacts:
        """The facts of the model."""
        return self._facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Continue a conversation. Closing the generator closes the connection, which ends the work at the upstream."""
        body = requests.body(self._upstream, self._model, request)
        if request.max_tokens == 0:
            # No upstream evaluates a prompt without an answer.
            yield Finish(reason="length")
            return
        reader = AnswerReader(request.top_logprobs, request.stop)
        begun = first = time.monotonic_ns()
        passed_on = False
        try:
            async with aclosing(self._client.events(body)) as events:
                async for event in events:
                    delta = reader.feed(event)
                    if reader.lacks_logprobs and not passed_on:
                        raise UnsupportedError(f"upstream {self._upstream.name!r} returns no log-probabilities")
                    if delta is not None:
                        first = first if passed_on else time.monotonic_ns()
                        passed_on = True
                        yield delta
            if not reader.reason:
                raise CutError
        except FAILURES as error:
            # Only the counts are missing from an answer that has said why it ended.
            if not reader.reason:
                raise translated(self._upstream, self._model, error, begun=passed_on) from None
        yield reader.finish(first - begun, time.monotonic_ns() - first)

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the vectors of texts, in order."""
        if "embedding" not in self._upstream.capabilities:
            raise UnsupportedError("this model does not support embeddings")
        made: list[Embedding] = []
        for some in embeddings.batches(inputs):
            body = {"model": self._model, "input": some, "encoding_format": "float"}
            try:
                made += embeddings.read(await self._client.embeddings(body), some)
            except FAILURES as error:
                raise translated(self._upstream, self._model, error) from None
        return made if raw else [embeddings.normalised(each) for each in made]

    def step(self) -> int | None:
        """Return a number that always changes, since the upstream's timeouts end what stalls."""
        return time.monotonic_ns()
