"""What a sequence yields, collected and checked against the order and the ranges that the contract demands."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from puna.backend import (
    BackendError,
    ChatDelta,
    Finish,
    LoadedModel,
    Prefill,
    PromptLogprobs,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    TokenLogprob,
)

SLACK_NS = 250_000_000
"""Nanoseconds by which reported durations may exceed the time that passed: clocks of two processes differ a little."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The events of a complete sequence."""

    deltas: tuple[TextDelta, ...]
    finish: Finish
    prefills: tuple[Prefill, ...] = ()
    elapsed_ns: int = 0
    """Nanoseconds from the call to the Finish."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """The log-probabilities of the prompt's tokens, in order."""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(delta.text for delta in self.deltas)

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """The log-probabilities of all tokens, in order."""
        return [each for delta in self.deltas for each in delta.logprobs]


async def collect(model: LoadedModel, request: SequenceRequest) -> Answer:
    """Run a sequence to its end. Raises AssertionError for an event that the contract forbids at its place."""
    deltas: list[TextDelta] = []
    prefills: list[Prefill] = []
    scored: list[TokenLogprob] = []
    finish = None
    begun = time.perf_counter_ns()
    async with aclosing(model.generate(request)) as events:
        async for event in events:
            assert finish is None, f"{event} came after the Finish; return after you have yielded a Finish"
            match event:
                case Prefill():
                    assert not deltas, f"{event} came after a text delta; report Prefill only before the first one"
                    check_prefill(event, prefills[-1] if prefills else None)
                    prefills.append(event)
                case PromptLogprobs():
                    assert not deltas, "log-probabilities of the prompt came after a text delta"
                    assert request.score_from is not None, "log-probabilities of the prompt came unasked"
                    scored += event.logprobs
                case TextDelta():
                    check_delta(event)
                    deltas.append(event)
                case Finish():
                    finish = event
                case ChatDelta():
                    raise AssertionError(f"{event} came for a request without a chat; yield TextDelta")
            # The host gives other sequences a turn after each event.
            await asyncio.sleep(0)
    elapsed = time.perf_counter_ns() - begun
    assert finish is not None, "the generator ended without a Finish; yield one as the last event"
    check_finish(finish, request, elapsed)
    if deltas:
        first = deltas[0].cached_prompt_tokens
        assert first in (0, finish.cached_prompt_tokens), f"the first delta counts {first} cached tokens: {finish}"
    assert not any(each.cached_prompt_tokens for each in deltas[1:]), "a later delta counts cached tokens"
    assert finish.output_tokens or not deltas, "there is text, but the Finish counts no output tokens"
    return Answer(tuple(deltas), finish, tuple(prefills), elapsed, tuple(scored))


def check_prefill(event: Prefill, before: Prefill | None) -> None:
    """Check the progress of a prefill, which goes forward and has one total."""
    assert 0 <= event.done_tokens <= event.total_tokens, f"{event} is out of range"
    if before is not None:
        assert event.total_tokens == before.total_tokens, f"the total changed from {before} to {event}"
        assert event.done_tokens >= before.done_tokens, f"the prefill went backwards from {before} to {event}"


def check_delta(event: TextDelta) -> None:
    """Check that a delta carries something, and that its text can be written as UTF-8."""
    assert event.text or event.logprobs, "a text delta is empty; yield none while text is held back"
    event.text.encode()


def check_finish(finish: Finish, request: SequenceRequest, elapsed_ns: int) -> None:
    """Check the last event: its reason and its numbers."""
    assert finish.reason in ("stop", "length"), f"the reason {finish.reason!r} is unknown"
    if finish.stop_sequence:
        assert finish.stop_sequence in request.stop, f"{finish.stop_sequence!r} is none of the stop strings"
        assert finish.reason == "stop", "a stop string ended the sequence, so the reason is 'stop'"
    assert 0 <= finish.output_tokens <= request.max_tokens, f"{finish.output_tokens} tokens exceed max_tokens"
    assert 0 <= finish.cached_prompt_tokens <= finish.prompt_tokens, f"more tokens are cached than there are: {finish}"
    assert 0 <= finish.accepted_draft_tokens <= finish.draft_tokens, f"more drafts are accepted than made: {finish}"
    assert min(finish.prompt_eval_ns, finish.eval_ns) >= 0, f"a duration is negative: {finish}"
    spent = finish.prompt_eval_ns + finish.eval_ns
    assert spent <= elapsed_ns + SLACK_NS, f"the durations ({spent} ns) exceed the time that passed ({elapsed_ns} ns)"


async def refusal(call: Coroutine[Any, Any, object]) -> BackendError:
    """Return the contract's error that a call raises. Raises AssertionError if it raises none."""
    try:
        await call
    except BackendError as error:
        return error
    raise AssertionError("the call should have been refused with an error of the contract")


async def first_event(events: AsyncGenerator[SequenceEvent]) -> SequenceEvent:
    """Return the first event after the progress of the prefill."""
    async for event in events:
        if not isinstance(event, Prefill):
            return event
    raise AssertionError("the generator ended without a Finish; yield one as the last event")


async def refused(model: LoadedModel, request: SequenceRequest) -> BackendError | None:
    """Return the error with which a sequence is refused; None if it yields text or ends.

    Raises AssertionError if the error comes after the first delta: the core has then already answered with a success.
    """
    deltas = 0
    caught = None
    try:
        async with aclosing(model.generate(request)) as events:
            async for event in events:
                deltas += not isinstance(event, Prefill | PromptLogprobs)
    except BackendError as error:
        caught = error
    if caught is not None:
        assert not deltas, f"the refusal came after the first delta: {caught}; check the request before you generate"
    return caught
