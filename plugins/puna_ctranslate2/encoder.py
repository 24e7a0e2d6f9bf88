"""A loaded encoder: it embeds."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import ctranslate2
import numpy as np
import numpy.typing as npt

from puna.backend import (
    Embedding,
    InvalidRequestError,
    ModelFacts,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    UnsupportedError,
)
from puna.blocking import stoppable
from puna_ctranslate2.tokenized import TokenizedModel, to_numpy
from puna_ctranslate2.vocabulary import Vocabulary

BATCH: Final = 16
"""Texts that are evaluated together. A cancellation takes effect between two batches."""

Floats = npt.NDArray[np.float32]


class Encoder(TokenizedModel):
    """A loaded encoder. The engine queues the calls that do not run at once."""

    def __init__(self, engine: ctranslate2.Encoder, vocabulary: Vocabulary, facts: ModelFacts, pooling: str) -> None:
        """`pooling`: "mean", "cls", "max" or "last"."""
        super().__init__(engine, vocabulary, facts)
        self._pool = POOLING[pooling]

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:  # noqa: ARG002
        """Raise UnsupportedError."""
        raise UnsupportedError("this model embeds and does not generate")
        yield  # makes it a generator

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return a vector for each text, scaled to length 1 unless `raw`."""
        texts = [await self.tokens_of(each) for each in inputs]
        for tokens in texts:
            if len(tokens) > self._facts.context_length:
                raise PromptTooLongError(len(tokens), self._facts.context_length)
            if not tokens:
                raise InvalidRequestError("there is nothing to embed")
        self.check_open()
        return await stoppable(lambda stopped: self._embed(texts, raw, stopped))

    def _embed(self, texts: list[list[int]], raw: bool, stopped: Callable[[], bool]) -> list[Embedding]:
        vectors: dict[int, Embedding] = {}
        # Texts of one length waste no work on padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        with self._work.running():
            for begin in range(0, len(order), BATCH):
                if stopped():
                    break
                batch = order[begin : begin + BATCH]
                states = forward(self._engine, [texts[index] for index in batch])
                for index, rows in zip(batch, states, strict=True):
                    vector = self._pool(rows[: len(texts[index])])
                    length = 1.0 if raw else float(np.linalg.norm(vector)) or 1.0
                    vectors[index] = Embedding((vector / length).tolist(), len(texts[index]))
                self._work.steps += 1
        return [vectors[index] for index in range(len(texts)) if index in vectors]


def forward(engine: ctranslate2.Encoder, texts: list[list[int]]) -> Floats:
    """Return the last states of the texts' tokens: texts by tokens by width."""
    return to_numpy(engine.forward_batch(texts).last_hidden_state)


POOLING: Final[dict[str, Callable[[Floats], Any]]] = {
    "mean": lambda rows: rows.mean(axis=0),
    "cls": lambda rows: rows[0],
    "max": lambda rows: rows.max(axis=0),
    "last": lambda rows: rows[-1],
}
"""Ways of making one vector of those of a text's tokens."""
