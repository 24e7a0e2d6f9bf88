"""Models of backends that need no host process: they run in the core's own process.

The plugin's errors are translated here just as a host's are, so callers see no difference.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

from puna.backend import (
    Backend,
    BackendError,
    Embedding,
    Finish,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    SequenceEvent,
    SequenceRequest,
)
from puna.errors import BackendFailedError, LoadFailedError, OutOfMemoryError
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

T = TypeVar("T")


class InProcessModel(LoadedModel):
    """A model in this process. Errors of the plugin that the contract does not name become BackendFailedError."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    @property
    def facts(self) -> ModelFacts:
        """The facts of the model."""
        return self._model.facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Run a sequence."""
        try:
            async with aclosing(self._model.generate(request)) as events:
                async for event in events:
                    yield event
                    # The contract says that Finish is the last event. Whatever a plugin yields after it is not passed
                    # on.
                    if isinstance(event, Finish):
                        return
            raise RuntimeError("the backend's generator ended without a Finish")
        except Exception as error:  # a plugin may raise anything; the error ends this sequence alone
            raise _translated(error) from error

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text."""
        return await _answer(self._model.tokenize(text, add_special=add_special, parse_special=parse_special))

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token."""
        return await _answer(self._model.detokenize(tokens, special=special))

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the embedding vectors of texts or token ids."""
        return await _answer(self._model.embed(inputs, raw=raw))

    async def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        """Return the relevance score of each document."""
        return await _answer(self._model.rerank(query, documents))

    async def aclose(self) -> None:
        """Free the model. An error is logged, since no request waits for it."""
        try:
            await self._model.aclose()
        except Exception:  # a plugin may raise anything
            log.exception("the backend failed to free a model")


async def load(backend: Backend, spec: ModelSpec, report: Callable[[float], None]) -> InProcessModel:
    """Load a model in this process.

    Raises LoadFailedError if the backend refuses, and OutOfMemoryError if there is no room.
    """
    try:
        return InProcessModel(await backend.load(spec, report))
    # MemoryError is an Exception too, so it must come first.
    except MemoryError as error:
        raise OutOfMemoryError(f"unable to load model: {error or 'out of memory'}") from error
    except Exception as error:  # a plugin may raise anything
        raise LoadFailedError(f"unable to load model: {error or type(error).__name__}") from error


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except Exception as error:  # a plugin may raise anything
        raise _translated(error) from error


def _translated(error: Exception) -> Exception:
    if isinstance(error, BackendError):
        return error
    log.error("the backend failed: %s", summarize(error))
    return BackendFailedError(str(error) or type(error).__name__)
