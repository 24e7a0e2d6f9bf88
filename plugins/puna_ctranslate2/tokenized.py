"""What a decoder and an encoder have in common: facts, tokens, and a number of steps."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt

from puna.backend import BackendError, LoadedModel, ModelFacts
from puna_ctranslate2.vocabulary import Vocabulary


def to_numpy(view: ctranslate2.StorageView) -> npt.NDArray[np.float32]:
    """Return a copy of an array of the engine, which may be on a GPU and of a type that numpy lacks."""
    return np.array(view.to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32))


class Work:
    """What runs, and how far it is. Any thread may use it."""

    def __init__(self) -> None:
        self.steps = 0
        """Tokens or batches so far."""
        # A set and not a number, since adding to a number is not atomic.
        self._running: set[object] = set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count as work until the context ends."""
        marker = object()
        self._running.add(marker)
        try:
            yield
        finally:
            self._running.discard(marker)

    def step(self) -> int | None:
        """Return the number of steps so far; None while nothing runs."""
        return self.steps if self._running else None


class TokenizedModel(LoadedModel):
    """A loaded model whose subclass generates or embeds."""

    def __init__(self, engine: Any, vocabulary: Vocabulary, facts: ModelFacts) -> None:  # noqa: ANN401 (no types)
        """`engine`: an object of the library, which `aclose` frees."""
        self._engine = engine
        self._vocabulary = vocabulary
        self._facts = facts
        self._work = Work()
        self._closed = False

    @property
    def facts(self) -> ModelFacts:
        """The facts of the model."""
        return self._facts

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the token ids of a text, in a thread: the time grows with the text."""
        return await asyncio.to_thread(
            self._vocabulary.tokenize, text, add_special=add_special, parse_special=parse_special
        )

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        """Return the bytes of each token."""
        self._vocabulary.validate(tokens)
        return [self._vocabulary.token_bytes(token, special=special) for token in tokens]

    def step(self) -> int | None:
        """Return the number of steps so far; None while nothing runs."""
        return self._work.step()

    async def aclose(self) -> None:
        """Free the model."""
        self._closed = True
        await asyncio.to_thread(self._engine.unload_model)

    def check_open(self) -> None:
        """Raise BackendError if the model was freed."""
        if self._closed:
            raise BackendError("the model was unloaded")

    async def tokens_of(self, text: str | Sequence[int]) -> list[int]:
        """Return the token ids of a prompt. Raises InvalidRequestError for an id that the vocabulary lacks."""
        if isinstance(text, str):
            return await self.tokenize(text, add_special=True, parse_special=True)
        self._vocabulary.validate(text)
        return list(text)
