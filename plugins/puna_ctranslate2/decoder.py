"""A loaded decoder: it generates.

CTranslate2 runs a sequence to its end on a thread of its own. It calls back after each token, and the callback's answer
may end the sequence. So text is assembled in the callback, where a stop string takes effect at once, and events travel
through a queue to the event loop. The engine evaluates a prompt in one call, which nothing can interrupt: a
cancellation during a prefill takes effect with the first token.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

import ctranslate2
import numpy as np

from puna.backend import (
    Finish,
    InvalidRequestError,
    ModelFacts,
    PromptTooLongError,
    Sampling,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    TokenLogprob,
    UnsupportedError,
)
from puna.backend.text import TextAssembly
from puna.blocking import in_thread
from puna_ctranslate2.tokenized import TokenizedModel, to_numpy
from puna_ctranslate2.vocabulary import Vocabulary

POLL_SECONDS: Final = 0.2
"""Interval at which a sequence that waits for a token looks whether the engine has failed."""
SMALLEST_TOP_P: Final = 1e-6
"""The engine refuses 0, which keeps the most probable token alone, as this does."""


class Decoder(TokenizedModel):
    """A loaded decoder. It runs as many sequences at once as it has slots; others wait in order of arrival."""

    def __init__(self, engine: ctranslate2.Generator, vocabulary: Vocabulary, facts: ModelFacts) -> None:
        """`engine` must have as many threads as the facts have slots."""
        super().__init__(engine, vocabulary, facts)
        self._slots = asyncio.Semaphore(facts.parallel)

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Yield the events of one sequence.

        Raises InvalidRequestError for constraints and UnsupportedError for biases and images, which the engine lacks.
        """
        refuse(request)
        tokens = await self.tokens_of(request.prompt)
        if len(tokens) >= self._facts.context_length:
            raise PromptTooLongError(len(tokens), self._facts.context_length)
        # The engine keeps no cache between sequences, so there is nothing to evaluate a prompt for.
        if not tokens or not request.max_tokens:
            yield Finish(reason="stop" if request.max_tokens else "length", prompt_tokens=len(tokens))
            return
        async with self._slots, aclosing(self._run(tokens, request)) as events:
            async for event in events:
                yield event

    async def _run(self, tokens: list[int], request: SequenceRequest) -> AsyncGenerator[SequenceEvent]:
        """Yield the events of one sequence."""
        self.check_open()  # here, since the model may have been freed while the sequence waited for a slot
        limit = min(request.max_tokens, self._facts.context_length - len(tokens))
        sequence = _Sequence(self._vocabulary, request, len(tokens), limit)
        abandoned = threading.Event()
        events: asyncio.Queue[SequenceEvent] = asyncio.Queue()
        loop, work = asyncio.get_running_loop(), self._work

        def emit(event: SequenceEvent) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        # The engine's thread drops the callback last. If that were the last reference to the engine, its destructor
        # would run on the thread for which it waits, and abort the process. So the callback must not refer to `self`.
        def on_token(step: Any) -> bool:  # noqa: ANN401 (a class of the extension)
            work.steps += 1
            return abandoned.is_set() or sequence.take(step, emit)

        with work.running():
            (pending,) = self._engine.generate_batch(
                [[self._vocabulary.spellings[token] for token in tokens]],
                asynchronous=True,
                callback=on_token,
                include_prompt_in_result=False,
                max_length=limit,
                end_token=self._vocabulary.end_ids,
                return_logits_vocab=request.top_logprobs is not None,
                **engine_sampling(request.sampling, len(self._vocabulary.spellings)),
            )
            try:
                async for event in _until_done(events, pending.done):
                    yield event
            finally:
                abandoned.set()
                # Raises what the engine or the callback raised. The model must not be freed before it returns.
                await in_thread(pending.result)


def refuse(request: SequenceRequest) -> None:
    """Raise the contract's error for what this engine cannot do to the form of an answer."""
    if request.constraint is not None:
        raise InvalidRequestError("the ctranslate2 backend cannot enforce a format or grammar")
    if request.sampling.logit_bias:
        raise UnsupportedError("the ctranslate2 backend has no logit_bias")
    if request.media:
        raise UnsupportedError("this model takes no images or sounds")
    if request.score_from is not None:
        raise UnsupportedError("the ctranslate2 backend gives no log-probabilities of a prompt")
    if request.chat is not None:
        raise InvalidRequestError("the ctranslate2 backend takes a prompt and no messages")


def engine_sampling(sampling: Sampling, vocabulary_size: int) -> dict[str, Any]:
    """Return the engine's sampling parameters. It lacks a seed and all that is not named here."""
    # The engine's penalty looks at the whole answer. With no token to look at there is none.
    penalty = sampling.repeat_penalty if sampling.repeat_last_n and sampling.repeat_penalty > 0 else 1.0
    if sampling.temperature <= 0:
        return {"sampling_topk": 1, "repetition_penalty": penalty}
    return {
        "sampling_topk": min(max(sampling.top_k, 0), vocabulary_size),
        "sampling_topp": min(max(sampling.top_p, SMALLEST_TOP_P), 1.0),
        "sampling_temperature": sampling.temperature,
        "repetition_penalty": penalty,
    }


async def _until_done(
    events: "asyncio.Queue[SequenceEvent]", done: Callable[[], bool]
) -> AsyncGenerator[SequenceEvent]:
    """Yield events up to the Finish, or up to the last one if the engine ends without it."""
    while True:
        # Asked before the queue, so that an event which comes in between is not lost.
        ended = done() and events.empty()
        try:
            async with asyncio.timeout(POLL_SECONDS):
                event = await events.get()
        except TimeoutError:
            if ended:
                return
            continue
        yield event
        if isinstance(event, Finish):
            return


class _Sequence:
    """A request, and how far its sequence is."""

    def __init__(self, vocabulary: Vocabulary, request: SequenceRequest, prompt_tokens: int, limit: int) -> None:
        self._vocabulary = vocabulary
        self._request = request
        self._prompt_tokens = prompt_tokens
        self._limit = limit
        self._text = TextAssembly(request.stop)
        self._logprobs: list[TokenLogprob] = []
        self._generated: list[int] = []
        self._started = self._decoding = time.perf_counter_ns()

    def take(self, step: Any, emit: Callable[[SequenceEvent], None]) -> bool:  # noqa: ANN401
        """Take a token from the engine and emit its events. Return whether the sequence has ended."""
        token = step.token_id
        if not self._generated:
            self._decoding = time.perf_counter_ns()
        if self._request.top_logprobs is not None:
            self._logprobs.append(self._logprob(token, step.logits, self._request.top_logprobs))
        self._generated.append(token)
        reason = ""
        if token in self._vocabulary.end_ids:
            reason, text = "stop", self._text.finish()
        else:
            kept = self._vocabulary.spellings[token] in self._request.preserved_tokens
            text = self._text.feed(self._vocabulary.token_bytes(token, special=kept))
            if self._text.stopped:
                reason = "stop"
            elif len(self._generated) >= self._limit:
                reason = "length"
        if text:
            emit(TextDelta(text, tuple(self._logprobs)))
            self._logprobs.clear()
        if reason:
            emit(self._finish(reason))
        return bool(reason)

    def _finish(self, reason: str) -> Finish:
        return Finish(
            reason=reason,
            stop_sequence=self._text.stop_sequence,
            prompt_tokens=self._prompt_tokens,
            output_tokens=len(self._generated),
            prompt_eval_ns=self._decoding - self._started,
            eval_ns=time.perf_counter_ns() - self._decoding,
        )

    def _logprob(self, token: int, view: ctranslate2.StorageView, top: int) -> TokenLogprob:
        logits = to_numpy(view).astype(np.float64).reshape(-1)
        penalty = self._request.sampling.repeat_penalty
        if self._generated and penalty > 0 and self._request.sampling.repeat_last_n:
            # The engine returns the logits after the penalty, which log-probabilities do not include.
            seen = np.unique(self._generated)
            logits[seen] = np.where(logits[seen] < 0, logits[seen] / penalty, logits[seen] * penalty)
        greatest = logits.max()
        logits -= greatest + np.log(np.exp(logits - greatest).sum())
        best = np.argsort(-logits, kind="stable")[:top]

        def of(index: int) -> TokenLogprob:
            return TokenLogprob(self._vocabulary.token_bytes(index, special=True), index, float(logits[index]))

        chosen = of(token)
        return TokenLogprob(chosen.raw, token, chosen.logprob, tuple(of(int(each)) for each in best))
