"""A loaded model, as the core sees it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from puna.backend import (
    ConstraintLimits,
    Finish,
    InvalidRequestError,
    LoadedModel,
    ModelFacts,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    UnsupportedError,
)
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.generation import sequence
from puna_llama_cpp.generation.engine import Engine
from puna_llama_cpp.sampling import chain as sampler_chain
from puna_llama_cpp.structured_output.constraint import Grammars
from puna_llama_cpp.vision.projector import Look, Projector

_QUICK_TEXT = 4096
"""Characters of a text that is tokenized sooner than a thread is found for it."""
_LOOKERS = 4
"""Threads that read pictures. Only one encodes at a time; the others can serve those seen before meanwhile."""


class LlamaModel(LoadedModel):
    """What writing and embedding models have in common: weights, a context and a vocabulary."""

    def __init__(self, weights: Weights, context: Context, facts: ModelFacts) -> None:
        """Own the weights and the context from now on."""
        self._weights, self._context, self._facts = weights, context, facts
        self._vocabulary = weights.vocabulary

    @property
    def facts(self) -> ModelFacts:
        """What it turned out to be."""
        return self._facts

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the ids of a text."""
        if len(text) <= _QUICK_TEXT:
            return self._vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)
        return await asyncio.to_thread(
            self._vocabulary.tokenize, text, add_special=add_special, parse_special=parse_special
        )

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return each token's bytes."""
        if len(tokens) <= _QUICK_TEXT:
            return self._vocabulary.detokenize(tokens, special=special)
        return await asyncio.to_thread(self._vocabulary.detokenize, tokens, special=special)

    async def _tokens(self, prompt: str | Sequence[int]) -> list[int]:
        """Return a prompt as tokens: text with special tokens read and added, ids as they are."""
        if isinstance(prompt, str):
            return await self.tokenize(prompt, add_special=True, parse_special=True)
        self._vocabulary.check(prompt)
        return list(prompt)

    def _close_engine(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Stop the thread and free everything."""
        await asyncio.to_thread(self._close_engine)
        self._context.close()
        self._weights.close()


class WritingModel(LlamaModel):
    """A model that writes text."""

    def __init__(
        self,
        weights: Weights,
        context: Context,
        facts: ModelFacts,
        projector: Projector | None,
        constraints: ConstraintLimits,
    ) -> None:
        """Own the projector too, and start the engine."""
        super().__init__(weights, context, facts)
        self._projector = projector
        self._lookers = ThreadPoolExecutor(_LOOKERS, "look")
        self._grammars = Grammars(self._vocabulary, constraints)
        self._engine = Engine(context, self._vocabulary, facts.parallel)

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Go on from a prompt."""
        running = await self._prepare(request)
        try:
            self._engine.submit(running)
            while not isinstance(event := await running.mailbox.get(), Finish):
                yield event
            yield event
        finally:
            self._engine.cancel(running)
            if running.matcher:
                running.matcher.close()

    def step(self) -> int | None:
        """Return how many steps the decode thread has made, while it has work."""
        return self._engine.step()

    async def _prepare(self, request: SequenceRequest) -> sequence.Sequence:
        sampler_chain.check(request.sampling)
        self._vocabulary.check(list(request.sampling.logit_bias))
        pictures = None
        if request.media:
            look = await self._look(request)
            tokens, pictures = look.tokens, look.pictures
        else:
            tokens = await self._tokens(request.prompt)
        if len(tokens) >= self._context.length:
            raise PromptTooLongError(len(tokens), self._context.length)
        if self._projector:
            # as in the reference, whatever the prompt: what a shift leaves of a picture would mean nothing
            request = replace(request, shift=False)
        preserved = self._vocabulary.special(request.preserved_tokens)
        matcher = await self._grammars.matcher(request.constraint) if request.constraint else None
        return sequence.Sequence(request, tokens, matcher, preserved, pictures)

    async def _look(self, request: SequenceRequest) -> Look:
        """Have the pictures looked at, in a thread. Cancelled, it leaves one that is being encoded to its end."""
        projector, text = self._projector, request.prompt
        if projector is None or not self._facts.vision:
            raise UnsupportedError("this model cannot look at pictures")
        if not isinstance(text, str):
            raise InvalidRequestError("pictures need a prompt of text, in which their places are marked")
        stopped = threading.Event()
        work = partial(projector.look, text, request.media, request.cache_salt, self._context, stopped.is_set)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._lookers, work)
        finally:
            stopped.set()

    def _close_engine(self) -> None:
        self._lookers.shutdown(cancel_futures=True)
        self._engine.close()
        self._grammars.close()
        if self._projector:
            self._projector.close()
