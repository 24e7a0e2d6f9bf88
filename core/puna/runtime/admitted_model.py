"""A loaded model as one request sees it: sequences wait for a slot, every other call passes through.

All text that goes to a backend passes here. A template may have produced lone surrogates, which neither protobuf nor
UTF-8 can carry, so they are replaced by U+FFFD.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, TypeVar

from puna import events
from puna.backend import DocumentScores, Embedding, LoadedModel, ModelFacts, Prefill, SequenceEvent, SequenceRequest
from puna.errors import BackendCrashedError
from puna.go.json import replace_lone_surrogates
from puna.runtime.admission import ConcurrencyLimiter, SlotWithdrawnError
from puna.runtime.sequence_stages import SequenceStages

if TYPE_CHECKING:
    from puna.runtime.replicas import Replicas

T = TypeVar("T")
HOST_ENDED: Final = "the host process of the model has ended"
"""The error of a request that waited for a slot when the server ended."""


class Loaded(Protocol):
    """A model that is loaded, as the pool keeps it."""

    @property
    def model(self) -> LoadedModel:
        """The model."""

    @property
    def limiter(self) -> ConcurrencyLimiter:
        """The limiter of its slots."""

    @property
    def replicas(self) -> "Replicas | None":
        """Its replicas, if it may have several."""


Renew: TypeAlias = Callable[[BackendCrashedError], Awaitable[Loaded]]
"""Loads a model again whose host has died of the error. Raises this error if that is impossible."""


class AdmittedModel(LoadedModel):
    """Starts a sequence when the model has a slot for it.

    When the host dies before the first token of an answer, the sequence runs once more on the model as it is loaded
    then. Nobody has seen anything of the first attempt.

    Only sequences wait. A backend batches embeddings across requests better than a limiter could, and counting tokens
    needs no slot.
    """

    def __init__(
        self,
        model: LoadedModel,
        limiter: ConcurrencyLimiter,
        on_position: Callable[[int], None],
        position: int = 0,
        renew: Renew | None = None,
    ) -> None:
        """`position` is the last one that the request was told before.

        `renew` loads the model again when its host has died; None: a request then fails.
        """
        self._model = model
        self._limiter = limiter
        self._on_position = on_position
        self._position = position
        self._renew = renew
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
        failure: BackendCrashedError | None = None
        prefilled = 0
        while True:
            model, answered = self._model, False
            try:
                async with self._limiter.slot(request.priority, on_position):
                    # A request that waited for the load and got a slot at once still shows its position in front of
                    # the load.
                    self._report(0)
                    self.queued_ns += time.perf_counter_ns() - began
                    if on_slot is not None:
                        on_slot()
                    async with aclosing(model.generate(request)) as found:
                        async for event in found:
                            if isinstance(event, Prefill):
                                # The second attempt evaluates the prompt again, and reports no tokens twice.
                                if event.done_tokens <= prefilled and failure is not None:
                                    continue
                                prefilled = event.done_tokens
                                yield event
                                continue
                            answered = True
                            yield event
                            break
                        # From here on nothing but the event itself is looked at, since there is one for each token.
                        async for event in found:
                            yield event
                return
            except SlotWithdrawnError:
                # An attempt that has not begun does not count, and the wait goes on.
                await self._renewed(model, failure or BackendCrashedError(HOST_ENDED))
                continue
            except BackendCrashedError as error:
                if answered or failure is not None:
                    raise
                failure, began = error, time.perf_counter_ns()
            await self._renewed(model, failure)

    async def _renewed(self, failed: LoadedModel, error: BackendCrashedError) -> None:
        """Take the model that is loaded in place of the one whose host has died. Raises `error` if there is none."""
        # Another sequence of the same lease may have done so.
        if self._model is failed:
            if self._renew is None:
                raise error
            loaded = await self._renew(error)
            self._model, self._limiter = loaded.model, loaded.limiter

    async def _answer(self, call: Callable[[LoadedModel], Awaitable[T]]) -> T:
        """Return the answer of a call of one message, which is repeated once if the host dies."""
        model = self._model
        try:
            return await call(model)
        except BackendCrashedError as error:
            await self._renewed(model, error)
        return await call(self._model)

    def _report(self, position: int) -> None:
        if position != self._position:
            self._position = position
            self._on_position(position)

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text."""
        text = replace_lone_surrogates(text)
        return await self._answer(
            lambda model: model.tokenize(text, add_special=add_special, parse_special=parse_special)
        )

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token."""
        return await self._answer(lambda model: model.detokenize(tokens, special=special))

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the embedding vectors of texts or token ids."""
        texts = [replace_lone_surrogates(each) if isinstance(each, str) else each for each in inputs]
        with events.stage("embed", inputs=len(texts)):
            return await self._answer(lambda model: model.embed(texts, raw=raw))

    async def rerank(self, query: str, documents: Sequence[str], /) -> DocumentScores:
        """Return the relevance scores of documents."""
        texts = [replace_lone_surrogates(each) for each in documents]
        with events.stage("rerank", inputs=len(texts)):
            asked = replace_lone_surrogates(query)
            return await self._answer(lambda model: model.rerank(asked, texts))


def _without_lone_surrogates(request: SequenceRequest) -> SequenceRequest:
    prompt = replace_lone_surrogates(request.prompt) if isinstance(request.prompt, str) else request.prompt
    stop = tuple(map(replace_lone_surrogates, request.stop))
    # `replace_lone_surrogates` returns its argument where there is nothing to replace, so the common case makes no
    # copy.
    if prompt is request.prompt and stop == request.stop:
        return request
    return replace(request, prompt=prompt, stop=stop)
