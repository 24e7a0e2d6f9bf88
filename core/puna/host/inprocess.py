"""A backend without native code runs in the core's own process: the same wall against its errors, without a socket."""

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
    """A model of such a backend. What the plugin raises beside the contract's errors becomes BackendFailedError."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    @property
    def facts(self) -> ModelFacts:
        """What the model turned out to be."""
        return self._model.facts

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Go on from a prompt."""
        try:
            async with aclosing(self._model.generate(request)) as events:
                async for event in events:
                    yield event
                    if isinstance(event, Finish):
                        return
            raise RuntimeError("the backend's generator ended without a Finish")
        except Exception as error:  # whatever a plugin raises ends this sequence alone
            raise _told(error) from error

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the ids of a text."""
        return await _answer(self._model.tokenize(text, add_special=add_special, parse_special=parse_special))

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return each token's bytes."""
        return await _answer(self._model.detokenize(tokens, special=special))

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the vectors of texts."""
        return await _answer(self._model.embed(inputs, raw=raw))

    async def rerank(self, query: str, documents: Sequence[str], /) -> list[float]:
        """Return how well each document fits the query."""
        return await _answer(self._model.rerank(query, documents))

    async def aclose(self) -> None:
        """Free the model. An error then concerns nobody any more, and is logged."""
        try:
            await self._model.aclose()
        except Exception:  # a stranger's code may raise anything
            log.exception("the backend failed to free a model")


async def load(backend: Backend, spec: ModelSpec, report: Callable[[float], None]) -> InProcessModel:
    """Load a model here. LoadFailedError: the backend refused. OutOfMemoryError: there was no room."""
    try:
        return InProcessModel(await backend.load(spec, report))
    except MemoryError as error:
        raise OutOfMemoryError(f"unable to load model: {error or 'out of memory'}") from error
    except Exception as error:  # a stranger's code may raise anything
        raise LoadFailedError(f"unable to load model: {error or type(error).__name__}") from error


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except Exception as error:  # a stranger's code may raise anything
        raise _told(error) from error


def _told(error: Exception) -> Exception:
    if isinstance(error, BackendError):
        return error
    log.error("the backend failed: %s", summarize(error))
    return BackendFailedError(str(error) or type(error).__name__)
