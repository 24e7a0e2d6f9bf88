"""A loaded model as one request sees it: its sequences take places, everything else passes.

Texts go from here to backends of every kind. A template may have made lone halves of characters, which no wire can
carry: they become U+FFFD.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from puna.backend import Embedding, LoadedModel, ModelFacts, SequenceEvent, SequenceRequest
from puna.go.json import whole
from puna.runtime.admission import Gate


class GatedModel(LoadedModel):
    """Lets a sequence begin when the model has a place for it.

    Only sequences wait here. A backend batches embeddings across requests better than a gate could, and counting tokens
    takes no place.
    """

    def __init__(self, model: LoadedModel, gate: Gate, report: Callable[[int], None]) -> None:
        self._model = model
        self._gate = gate
        self._report = report
        self.queued_ns = 0
        """How long its sequences have waited for places so far."""

    @property
    def facts(self) -> ModelFacts:
        """What the model turned out to be."""
        return self._model.facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Go on from a prompt, once there is a place."""
        began = time.perf_counter_ns()
        async with self._gate.place(request.priority, self._report):
            self.queued_ns += time.perf_counter_ns() - began
            async with aclosing(self._model.generate(_whole_request(request))) as events:
                async for event in events:
                    yield event

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the ids of a text."""
        return await self._model.tokenize(whole(text), add_special=add_special, parse_special=parse_special)

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return each token's bytes."""
        return await self._model.detokenize(tokens, special=special)

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the vectors of texts."""
        texts = [whole(each) if isinstance(each, str) else each for each in inputs]
        return await self._model.embed(texts, raw=raw)

    async def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        """Return how well each document fits the query."""
        return await self._model.rerank(whole(query), [whole(each) for each in documents])


def _whole_request(request: SequenceRequest) -> SequenceRequest:
    prompt = whole(request.prompt) if isinstance(request.prompt, str) else request.prompt
    stop = tuple(map(whole, request.stop))
    if prompt is request.prompt and stop == request.stop:
        return request
    return replace(request, prompt=prompt, stop=stop)
