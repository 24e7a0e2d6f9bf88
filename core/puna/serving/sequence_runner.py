"""Running one sequence on a leased model: the guard against endless repetition, and errors in our own words."""

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from typing import Final

from puna.backend import (
    BackendError,
    Finish,
    LoadedModel,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
)
from puna.backend import InvalidRequestError as BackendInvalidRequestError
from puna.backend import UnsupportedError as BackendUnsupportedError
from puna.errors import (
    BackendFailedError,
    ContextOverflowError,
    EngineRefusedError,
    InvalidRequestError,
    UnsupportedConstraintError,
    UnsupportedOperationError,
)
from puna.go import json as gojson
from puna.serving.answers import SpokenLogprob

REPEATS: Final = 30
"""How often a piece may follow itself (white space aside) before the model counts as stuck."""


class Guard:
    """Tells when a model says the same for ever. White space alone always counts as the same."""

    def __init__(self) -> None:
        self._last = ""
        self._repeats = 0

    def stuck(self, text: str) -> bool:
        """Take the next piece; return whether it is one too many."""
        word = text.strip()
        if word != self._last:
            self._last, self._repeats = word, 0
            return False
        self._repeats += 1
        return self._repeats > REPEATS


@contextmanager
def translating(request: SequenceRequest | None = None) -> Generator[None]:
    """Raise what a backend raises as the errors that clients know. `request`: the sequence in question, if any."""
    try:
        yield
    except PromptTooLongError as error:
        raise ContextOverflowError(overflow_text(error.prompt_tokens, error.context_length)) from error
    except BackendInvalidRequestError as error:
        if request is not None and request.constraint is not None and not request.media:  # those can be broken too
            raise UnsupportedConstraintError(str(error)) from error
        if request is not None:
            raise EngineRefusedError(_refusal(str(error))) from error
        raise InvalidRequestError(str(error)) from error
    except BackendUnsupportedError as error:
        raise UnsupportedOperationError(str(error)) from error
    except BackendError as error:
        raise BackendFailedError(str(error)) from error


def overflow_text(prompt_tokens: int, context_length: int, *, at_least: bool = False) -> str:
    """Return the answer of Ollama's engine to a prompt that does not fit; clients look for its words.

    `at_least`: the prompt has even more tokens, which were not counted.
    """
    number = f"at least {prompt_tokens}" if at_least else str(prompt_tokens)
    return (
        f'{{"error":{{"code":400,"message":"request ({number} tokens) exceeds the available context size '
        f'({context_length} tokens), try increasing it","type":"exceed_context_size_error",'
        f'"n_prompt_tokens":{prompt_tokens},"n_ctx":{context_length}}}}}'
    )


def _refusal(text: str) -> str:
    """Put a text as the reference's engine does, whose answers its clients see as they are."""
    return f'{{"error":{{"code":400,"message":{gojson.string(text)},"type":"invalid_request_error"}}}}'


async def run(model: LoadedModel, request: SequenceRequest, *, guarded: bool) -> AsyncGenerator[SequenceEvent]:
    """Yield a sequence's events; one that repeats itself for ever is ended like any other, with reason "stop".

    Where a form is demanded the reason is "length": what was cut does not have it, and "stop" would promise that.

    Closing the generator ends the sequence, also in the middle of the prompt's evaluation.
    """
    guard = Guard()
    begun = first = time.monotonic_ns()
    deltas = 0
    with translating(request):
        async with aclosing(model.generate(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    first = first if deltas else time.monotonic_ns()
                    deltas += 1
                    if guarded and guard.stuck(event.text):
                        break
                    event = _spoken(event)
                yield event
                if isinstance(event, Finish):
                    return
        yield Finish(
            reason="stop" if request.constraint is None else "length",
            prompt_tokens=await _count(model, request),
            output_tokens=deltas,
            prompt_eval_ns=first - begun,
            eval_ns=time.monotonic_ns() - first,
        )


def _spoken(delta: TextDelta) -> TextDelta:
    """Note with the log-probabilities of a piece what came out with which token: all of it with the last."""
    entries = delta.logprobs
    if not entries or (len(entries) == 1 and entries[0].raw.decode(errors="replace") == delta.text):
        return delta
    texts = [""] * (len(entries) - 1) + [delta.text]
    spoken = (SpokenLogprob(e.raw, e.token_id, e.logprob, e.top, text) for e, text in zip(entries, texts, strict=True))
    return TextDelta(delta.text, tuple(spoken))


async def _count(model: LoadedModel, request: SequenceRequest) -> int:
    if isinstance(request.prompt, str):
        return len(await model.tokenize(request.prompt, add_special=True, parse_special=True))
    return len(request.prompt)
