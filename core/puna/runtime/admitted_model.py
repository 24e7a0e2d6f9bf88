"""A loaded model as one request sees it: sequences wait for a slot, every other call passes through.

All text that goes to a backend passes here. A template may have produced lone surrogates, which neither protobuf nor
UTF-8 can carry, so they are replaced by U+FFFD.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from puna import events
from puna.backend import DocumentScores, Embedding, LoadedModel, ModelFacts, SequenceEvent, SequenceRequest
from puna.go.json import replace_lone_surrogates
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.sequence_stages import SequenceStages


class AdmittedModel(LoadedModel):
    """Starts a sequence when the model has a slot for it.

    Only sequences wait. A backend batches embeddings across requests better than a limiter could, and counting tokens
    needs no slot.
    """

    def __init__(
        self, model: LoadedModel, limiter: ConcurrencyLimiter, on_position: Callable[[int], None], position: int = 0
    ) -> None:
        """`position` is the last one that the request was told before."""
        self._model = model
        self._limiter = limiter
        self._on_position = on_position
        self._position = position
        self.queued_ns = 0
        """Nanoseconds for which its sequences have waited for slots so far."""

    @property
    def facts(self) -> ModelFacts:
        """The facts of the model."""
        return self._model.facts

    def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Run a sequence once a slot is free. Closing the generator frees the slot."""
        request = _without_lone_surrogates(request)
        if events.wanted(events.SequenceBegan):
            events.publish(events.SequenceBegan(request, events.choice.get()))
        if not events.wanted(events.StageEnded):
            return self._run(request, self._report)
        stages = SequenceStages(self._report)
        return stages.observing(self._run(request, stages.on_position, stages.on_slot))

    async def _run(
        self, request: SequenceRequest, on_position: Callable[[int], None], on_slot: Callable[[], None] | None = None
    ) -> AsyncGenerator[SequenceEvent]:
        # A chat with structured output runs two sequences on one lease, so the times add up.
        began = time.perf_counter_ns()
        async with self._limiter.slot(request.priority, on_position):
            # A request that waited for the load and got a slot at once still shows its position in front of the load.
            self._report(0)
            self.queued_ns += time.perf_counter_ns() - began
            if on_slot is not None:
                on_slot()
            async with aclosing(self._model.generate(request)) as found:
                async for event in found:
                    yield event

    def _report(self, position: int) -> None:
        if position != self._position:
            self._position = position
            self._on_position(position)

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text."""
        return await self._model.tokenize(
            replace_lone_surrogates(text), add_special=add_special, parse_special=parse_special
        )

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token."""
        return await self._model.detokenize(tokens, special=special)

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the embedding vectors of texts or token ids."""
        texts = [replace_lone_surrogates(each) if isinstance(each, str) else each for each in inputs]
        with events.stage("embed", inputs=len(texts)):
            return await self._model.embed(texts, raw=raw)

    async def rerank(self, query: str, documents: Sequence[str], /) -> DocumentScores:
        """Return the relevance scores of documents."""
        texts = [replace_lone_surrogates(each) for each in documents]
        with events.stage("rerank", inputs=len(texts)):
            return await self._model.rerank(replace_lone_surrogates(query), texts)


def _without_lone_surrogates(request: SequenceRequest) -> SequenceRequest:
    prompt = replace_lone_surrogates(request.prompt) if isinstance(request.prompt, str) else request.prompt
    stop = tuple(map(replace_lone_surrogates, request.stop))
    # `replace_lone_surrogates` returns its argument where there is nothing to replace, so the common case makes no
    # copy.
    if prompt is request.prompt and stop == request.stop:
        return request
    return replace(request, prompt=prompt, stop=stop)
