"""Runs one sequence on a leased model.

Two things are added to what the backend yields. A model that repeats one delta for ever is stopped by RepetitionGuard;
the Finish that the backend then no longer sends is made here, with counts from this side. And the backend's errors are
translated into those of `puna.errors`, whose texts clients know.

Cancellation: closing the generator closes the backend's, also in the middle of a prefill. Callers must iterate
inside `aclosing`, so that the close happens at once and not when garbage is collected.
"""

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import Final

from puna.backend import (
    BackendError,
    ChatDelta,
    Finish,
    LoadedModel,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    UnavailableError,
)
from puna.backend import InvalidRequestError as BackendInvalidRequestError
from puna.backend import UnsupportedError as BackendUnsupportedError
from puna.errors import (
    BackendCrashedError,
    BackendFailedError,
    BackendUnavailableError,
    ContextOverflowError,
    EngineRefusedError,
    InvalidRequestError,
    UnsupportedConstraintError,
    UnsupportedOperationError,
)
from puna.go import json as gojson
from puna.serving.answers import LogprobWithText

# Ollama stops at the same number.
REPEATS: Final = 30
"""How often a delta may repeat, apart from white space, before the model counts as stuck."""


class RepetitionGuard:
    """Detects a model that repeats one delta for ever. Two deltas of white space alone count as equal."""

    def __init__(self) -> None:
        self._last = ""
        self._repeats = 0

    def stuck(self, text: str) -> bool:
        """Take the next delta; return whether it has been repeated too often."""
        word = text.strip()
        if word != self._last:
            self._last, self._repeats = word, 0
            return False
        self._repeats += 1
        return self._repeats > REPEATS


@contextmanager
def translating_errors(request: SequenceRequest | None = None) -> Generator[None]:
    """Translate a backend's errors into errors of `puna.errors`. `request` is the sequence, if one runs."""
    try:
        yield
    # The order matters: the specific classes come before BackendError, their base.
    except PromptTooLongError as error:
        raise ContextOverflowError(overflow_text(error.prompt_tokens, error.context_length)) from error
    except BackendInvalidRequestError as error:
        # The contract has one error for every invalid request. With a constraint and no media, the constraint is the
        # likely cause, and its message names the part that cannot be enforced.
        if request is not None and request.constraint is not None and not request.media:
            raise UnsupportedConstraintError(str(error)) from error
        # Inside a sequence the text is wrapped as Ollama's engine does it, since the server passes the engine's JSON
        # on. A backend that takes messages is not in the place of that engine.
        if request is not None and request.chat is None:
            raise EngineRefusedError(_refusal(str(error))) from error
        raise InvalidRequestError(str(error)) from error
    except UnavailableError as error:
        raise BackendUnavailableError(str(error)) from error
    except BackendUnsupportedError as error:
        raise UnsupportedOperationError(str(error)) from error
    except BackendError as error:
        raise BackendFailedError(str(error)) from error


def broken_off(error: BackendCrashedError, deltas: int) -> BackendCrashedError:
    """Return the error of an answer of which so many deltas were sent before its host died."""
    if not deltas:
        return error
    text = f"{error}; the answer breaks off after {deltas} delta{'s' if deltas > 1 else ''}"
    return BackendCrashedError(text, **error.info, output_deltas=deltas)


def overflow_text(prompt_tokens: int, context_length: int, *, at_least: bool = False) -> str:
    """Return the text with which Ollama's engine answers a prompt that does not fit; clients look for its words.

    `at_least` means that the prompt has more tokens, which were not counted.
    """
    number = f"at least {prompt_tokens}" if at_least else str(prompt_tokens)
    return (
        f'{{"error":{{"code":400,"message":"request ({number} tokens) exceeds the available context size '
        f'({context_length} tokens), try increasing it","type":"exceed_context_size_error",'
        f'"n_prompt_tokens":{prompt_tokens},"n_ctx":{context_length}}}}}'
    )


def _refusal(text: str) -> str:
    """Return an error text in the JSON of Ollama's engine, which clients see as it is."""
    return f'{{"error":{{"code":400,"message":{gojson.string(text)},"type":"invalid_request_error"}}}}'


async def run(model: LoadedModel, request: SequenceRequest, *, guarded: bool) -> AsyncGenerator[SequenceEvent]:
    """Yield a sequence's events. With `guarded`, a sequence that repeats itself for ever ends with reason "stop".

    With a constraint the reason is "length" instead, since "stop" would promise that the text fits the constraint.
    """
    guard = RepetitionGuard()
    begun = first = time.monotonic_ns()
    deltas = cached = 0
    with translating_errors(request):
        async with aclosing(model.generate(request)) as events:
            try:
                async for event in events:
                    # The stuck delta itself is dropped: the break comes before the yield.
                    if isinstance(event, TextDelta):
                        # The prefill ends with the first delta.
                        if not deltas:
                            first, cached = time.monotonic_ns(), event.cached_prompt_tokens
                        deltas += 1
                        if guarded and guard.stuck(event.text):
                            break
                        event = _with_token_text(event)
                    elif isinstance(event, ChatDelta):
                        deltas += 1
                    yield event
                    if isinstance(event, Finish):
                        return
            except BackendCrashedError as error:
                raise broken_off(error, deltas) from error
        # Only the guard leaves the loop without a Finish, so the backend has sent no counts. Counting is outside of the
        # generator, which the `aclosing` above has ended, so the slot is free again.
        prompt_tokens = await _count(model, request)
        yield Finish(
            reason="stop" if request.constraint is None else "length",
            prompt_tokens=prompt_tokens,
            cached_prompt_tokens=max(0, min(cached, prompt_tokens)),
            output_tokens=deltas,
            prompt_eval_ns=first - begun,
            eval_ns=time.monotonic_ns() - first,
        )


def _with_token_text(delta: TextDelta) -> TextDelta:
    """Attribute a delta's text to its log-probabilities: all of it to the last token, none to the others."""
    entries = delta.logprobs
    if not entries or (len(entries) == 1 and entries[0].raw.decode(errors="replace") == delta.text):
        return delta
    # Bytes of several tokens may make one character, so the text cannot be divided among them.
    texts = [""] * (len(entries) - 1) + [delta.text]
    spoken = (
        LogprobWithText(e.raw, e.token_id, e.logprob, e.top, text) for e, text in zip(entries, texts, strict=True)
    )
    return TextDelta(delta.text, tuple(spoken))


async def _count(model: LoadedModel, request: SequenceRequest) -> int:
    if not model.facts.tokenizer:
        return 0
    if isinstance(request.prompt, str):
        return len(await model.tokenize(request.prompt, add_special=True, parse_special=True))
    return len(request.prompt)
