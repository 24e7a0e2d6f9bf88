"""A loaded model as the backend contract defines it: the part that all models share, and the generative model."""

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
    KvCacheUsage,
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
from puna_llama_cpp.generation.speculation import Speculator
from puna_llama_cpp.kv_store.cache import IDLE_SECONDS, DiskCache, RestoredState
from puna_llama_cpp.native_calls import NativeCalls
from puna_llama_cpp.sampling import chain as sampler_chain
from puna_llama_cpp.step_thread import unloaded_error
from puna_llama_cpp.structured_output.constraint import ConstraintClient
from puna_llama_cpp.vision.projector import EncodedPrompt, EncodingCancelledError, Projector

_INLINE_TEXT_CHARS = 4096
"""Characters of a text that are tokenized in less time than it takes to hand the work to a thread."""
_ENCODER_THREADS = 4
"""Threads of the vision encoder pool. Only one image is encoded at a time; the others serve images from the cache."""


class LlamaModel(LoadedModel):
    """The common part of generative and embedding models: weights, a context and a vocabulary."""

    def __init__(self, weights: Weights, context: Context, facts: ModelFacts) -> None:
        """Take ownership of the weights and the context."""
        self._weights, self._context, self._facts = weights, context, facts
        self._vocabulary = weights.vocabulary
        self._native_calls = NativeCalls()
        self._closing = threading.Lock()

    @property
    def facts(self) -> ModelFacts:
        """The properties that the core asks about."""
        return self._facts

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text."""
        tokenize = partial(self._vocabulary.tokenize, text, add_special=add_special, parse_special=parse_special)
        if len(text) <= _INLINE_TEXT_CHARS:
            return self._native_calls.call(tokenize)
        return await asyncio.to_thread(self._native_calls.call, tokenize)

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token."""
        detokenize = partial(self._vocabulary.detokenize, tokens, special=special)
        if len(tokens) <= _INLINE_TEXT_CHARS:
            return self._native_calls.call(detokenize)
        return await asyncio.to_thread(self._native_calls.call, detokenize)

    async def _tokens(self, prompt: str | Sequence[int]) -> list[int]:
        """Return a prompt's token ids. Text may contain special tokens and gets BOS; ids are used as they are."""
        if isinstance(prompt, str):
            return await self.tokenize(prompt, add_special=True, parse_special=True)
        self._vocabulary.validate(prompt)
        return list(prompt)

    def _close_engine(self) -> None:
        """Stop the threads that use the context."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Stop the threads, then free the context and the weights. A second call does nothing."""
        # In a thread, since it waits for the running batch, for images that are being encoded, and for other models.
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        # A second call waits until the first has freed everything.
        with self._closing:
            self._native_calls.close()
            self._close_engine()
            self._context.close()
            self._weights.close()


class GenerativeModel(LlamaModel):
    """A model that generates text."""

    def __init__(
        self,
        weights: Weights,
        context: Context,
        facts: ModelFacts,
        projector: Projector | None,
        constraints: ConstraintLimits,
        speculator: Speculator | None,
        disk: DiskCache | None = None,
    ) -> None:
        """Take ownership of the projector and the speculator too, and start the engine.

        Without a speculator, no token is drafted. `disk` keeps the KV cache on disk.
        """
        super().__init__(weights, context, facts)
        self._projector = projector
        self._encoder_pool = ThreadPoolExecutor(_ENCODER_THREADS, "look")
        self._constraints = ConstraintClient(self._vocabulary, constraints)
        self._disk, self._speculator = disk, speculator
        self._saving: asyncio.TimerHandle | None = None
        """The next saving of what the slots hold."""
        self._engine = Engine(context, self._vocabulary, facts.parallel, speculator, disk)

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Yield the events of one sequence. Closing the generator cancels the sequence."""
        running = await self._prepare(request)
        try:
            if self._disk is not None:
                running.restored = await self._find_on_disk(self._disk, running)
            # Inside the try, so that the matcher's process ends even if the model has been unloaded meanwhile.
            self._engine.submit(running)
            while not isinstance(event := await running.results.get(), Finish):
                yield event
            yield event
        finally:
            self._engine.cancel(running)
            if running.matcher:
                running.matcher.close()
            if self._disk is not None:
                self._save_when_idle()

    def step(self) -> int | None:
        """Return the number of steps of the decode thread; None while it has no work."""
        return self._engine.step()

    def kv_cache_usage(self) -> KvCacheUsage | None:
        """Return how much of the KV cache is in use; None for a model without one, such as a recurrent one."""
        return self._engine.kv_cache_usage() if self._facts.kv_cache_tokens else None

    async def _prepare(self, request: SequenceRequest) -> sequence.Sequence:
        """Validate a request and create its sequence. Nothing is queued before all of this has succeeded."""
        sampler_chain.validate(request.sampling)
        # Ids beyond the vocabulary are refused before anything is tokenized or queued.
        self._vocabulary.validate(list(request.sampling.logit_bias))
        images = None
        if request.media:
            encoded = await self._encode_images(request)
            tokens, images = encoded.tokens, encoded.images
        else:
            tokens = await self._tokens(request.prompt)
        if request.score_from is not None:
            _check_scored(request, request.score_from)
        # At least one token must fit behind the prompt, unless the prompt is only scored.
        scored_only = request.score_from is not None and request.max_tokens == 0
        if len(tokens) - scored_only >= self._context.length:
            raise PromptTooLongError(len(tokens), self._context.length)
        if self._projector:
            # Ollama never shifts the context of a model with a projector, not even for prompts without an image.
            request = replace(request, shift=False)
        # The constraint comes last: its process must not be started for a request that is refused anyway.
        preserved = self._native_calls.call(self._vocabulary.special_tokens, request.preserved_tokens)
        matcher = await self._constraints.matcher(request.constraint) if request.constraint else None
        return sequence.Sequence(request, tokens, matcher, preserved, images, self._closings(request))

    async def _find_on_disk(self, disk: DiskCache, running: sequence.Sequence) -> RestoredState | None:
        salt, tokens = running.request.cache_salt, running.tokens
        return await disk.find(tokens, salt, running.reusable_length, lambda: self._engine.cached_length(tokens, salt))

    def _save_when_idle(self) -> None:
        """Save what the slots hold once no request has ended for some seconds."""
        if self._saving is not None:
            self._saving.cancel()
        self._saving = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._engine.save)

    async def aclose(self) -> None:
        """Stop the threads, save what the KV cache holds if that is wanted, then free everything."""
        if self._saving is not None:
            self._saving.cancel()
        await super().aclose()

    def _closings(self, request: SequenceRequest) -> dict[str, list[int]]:
        """Return the tokens of each text that closes the thinking."""
        texts = request.thinking_budget.markers.closings if request.thinking_budget is not None else ()
        tokenize = self._vocabulary.tokenize_continuation
        return {text: self._native_calls.call(tokenize, text) for text in texts}

    async def _encode_images(self, request: SequenceRequest) -> EncodedPrompt:
        """Encode a prompt's images in the encoder pool.

        On cancellation, and when the model is unloaded, the image that is being encoded is completed, since mtmd cannot
        be interrupted; the others are dropped.
        """
        projector, text = self._projector, request.prompt
        if projector is None or not self._facts.vision:
            raise UnsupportedError("this model cannot look at images")
        if not isinstance(text, str):
            raise InvalidRequestError("images need a prompt of text, in which their places are marked")
        cancelled = threading.Event()

        def is_cancelled() -> bool:
            return cancelled.is_set() or self._native_calls.closed

        work = partial(projector.encode, text, request.media, request.cache_salt, self._context, is_cancelled)
        try:
            encoding = asyncio.get_running_loop().run_in_executor(self._encoder_pool, work)
        except RuntimeError as error:  # the pool takes no more work
            raise unloaded_error() from error
        try:
            return await encoding
        except EncodingCancelledError as error:
            # Had the request been cancelled, nothing would wait here.
            raise unloaded_error() from error
        finally:
            cancelled.set()

    def _close_engine(self) -> None:
        # Encoders use the projector and the engine uses the context, so both end before what they use is freed.
        self._encoder_pool.shutdown()
        self._engine.close()
        if self._speculator is not None:
            self._speculator.close()
        self._constraints.close()
        if self._projector:
            self._projector.close()


def _check_scored(request: SequenceRequest, start: int) -> None:
    """Raise InvalidRequestError unless prompt tokens from the index `start` on can be scored."""
    if isinstance(request.prompt, str) or request.media:
        raise InvalidRequestError("log-probabilities of a prompt need token ids and no media")
    if not 0 < start < len(request.prompt):
        raise InvalidRequestError(f"score_from is {start} in a prompt of {len(request.prompt)} tokens")
