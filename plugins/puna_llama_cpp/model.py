"""A loaded model, as the core sees it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from puna.backend import (
    Finish,
    LoadedModel,
    ModelFacts,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    UnsupportedError,
)
from puna_llama_cpp import sampling, sequence
from puna_llama_cpp.context import Context
from puna_llama_cpp.engine import Engine
from puna_llama_cpp.grammar import Grammars
from puna_llama_cpp.weights import Weights

_QUICK_TEXT = 4096
"""Characters of a text that is tokenized sooner than a thread is found for it."""


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

    def __init__(self, weights: Weights, context: Context, facts: ModelFacts) -> None:
        """Start its engine."""
        super().__init__(weights, context, facts)
        self._grammars = Grammars(self._vocabulary)
        self._engine = Engine(context, self._vocabulary, facts.parallel)

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Go on from a prompt."""
        running = await self._prepare(request)
        self._engine.submit(running)
        try:
            while not isinstance(event := await running.mailbox.get(), Finish):
                yield event
            yield event
        finally:
            self._engine.cancel(running)

    async def _prepare(self, request: SequenceRequest) -> sequence.Sequence:
        if request.media:
            raise UnsupportedError("this model cannot look at pictures")
        sampling.check(request.sampling)
        self._vocabulary.check(list(request.sampling.logit_bias))
        tokens = await self._tokens(request.prompt)
        if len(tokens) >= self._context.length:
            raise PromptTooLongError(len(tokens), self._context.length)
        matcher = None
        if request.constraint:
            matcher = await asyncio.to_thread(self._grammars.matcher, request.constraint)
        preserved = self._vocabulary.special(request.preserved_tokens)
        return sequence.Sequence(request, tokens, matcher, preserved)

    def _close_engine(self) -> None:
        self._engine.close()
