"""A complete backend of a third party: it repeats the prompt. Its tokens are bytes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from puna.backend import (
    Backend,
    Finish,
    InvalidRequestError,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    UnsupportedError,
)
from puna.backend.text import TextAssembly


class Parrot(LoadedModel):
    """A loaded model."""

    def __init__(self, spec: ModelSpec) -> None:
        self._length = spec.context_length

    @property
    def facts(self) -> ModelFacts:
        """What the core should know."""
        return ModelFacts(context_length=self._length, parallel=4)

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Repeat the prompt, byte by byte."""
        if request.media:
            raise UnsupportedError("a parrot takes no images or sounds")
        if request.sampling.logit_bias:
            raise UnsupportedError("a parrot cannot be biased")
        if request.constraint:
            raise InvalidRequestError("a parrot knows no grammar")
        if request.top_logprobs is not None:
            raise UnsupportedError("a parrot does not say how sure it is")
        if request.score_from is not None:
            raise UnsupportedError("a parrot judges nobody's words")
        tokens = request.prompt.encode() if isinstance(request.prompt, str) else as_bytes(request.prompt)
        if len(tokens) >= self._length:
            raise PromptTooLongError(len(tokens), self._length)
        text, count = TextAssembly(request.stop), 0
        while count < min(len(tokens), request.max_tokens) and not text.stop_sequence:
            if piece := text.feed(tokens[count : count + 1]):
                yield TextDelta(piece)
            count += 1
        whole = bool(text.stop_sequence) or count == len(tokens) < request.max_tokens
        if whole and (rest := text.finish()):
            yield TextDelta(rest)
        yield Finish(
            reason="stop" if whole else "length",
            stop_sequence=text.stop_sequence,
            prompt_tokens=len(tokens),
            output_tokens=count,
        )

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the bytes' values."""
        return list(text.encode())

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return each byte."""
        return [as_bytes([token]) for token in tokens]


def as_bytes(tokens: Sequence[int]) -> bytes:
    """Put tokens together."""
    try:
        return bytes(tokens)
    except ValueError as error:
        raise InvalidRequestError("a parrot's tokens are bytes") from error


class ParrotBackend(Backend):
    """Parrots live in files of any content."""

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Wake the parrot up."""
        if not await asyncio.to_thread(Path(spec.path).exists):
            raise InvalidRequestError(f"there is no parrot in {spec.path}")
        return Parrot(spec)
