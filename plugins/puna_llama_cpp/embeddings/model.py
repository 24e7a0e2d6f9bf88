"""A loaded model that embeds or ranks texts."""

import asyncio
from array import array
from collections.abc import AsyncGenerator, Sequence

import llama_cpp.llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from puna.backend import (
    DocumentScores,
    Embedding,
    InvalidRequestError,
    ModelFacts,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    UnsupportedError,
)
from puna_ggml_kernels.loader import installed as kernels_installed
from puna_llama_cpp.binding.context import Context
from puna_llama_cpp.binding.weights import Weights
from puna_llama_cpp.embeddings.engine import CPU_BATCH, GPU_BATCH, KERNELS_BATCH, EmbeddingEngine, normalized
from puna_llama_cpp.embeddings.fair_queue import Job
from puna_llama_cpp.model import LlamaModel

_SLICE = 64
"""Vectors that are converted to numbers before the event loop gets a turn."""


class EmbeddingModel(LlamaModel):
    """A model that returns vectors, or scores if it pools by rank."""

    def __init__(self, weights: Weights, context: Context, facts: ModelFacts, slots: int) -> None:
        """Start the engine, with up to `slots` texts in a batch."""
        super().__init__(weights, context, facts)
        self._ranks = context.pooling == lib.LLAMA_POOLING_TYPE_RANK
        length = weights.classifier_outputs if self._ranks else weights.embedding_length
        # `vram_bytes` says whether any weights are on a GPU.
        batch_tokens = GPU_BATCH if facts.vram_bytes else KERNELS_BATCH if kernels_installed() else CPU_BATCH
        self._engine = EmbeddingEngine(context, slots=slots, batch_tokens=batch_tokens, length=length)
        self._limit = facts.embedding_tokens

    async def generate(self, _request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        """Raise UnsupportedError: this kind of model generates no text."""
        raise UnsupportedError("this model does not generate text")
        yield  # makes this an async generator, which raises when it is first awaited

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        """Return the vectors of texts (or token ids), in order."""
        if self._context.pooling == lib.LLAMA_POOLING_TYPE_NONE:
            raise UnsupportedError("Pooling type 'none' is not OAI compatible. Please use a different pooling type")
        if self._ranks:
            raise UnsupportedError("this model ranks and does not embed")
        texts = []
        for text in inputs:
            texts.append(await self._tokens(text))
            await asyncio.sleep(0)  # short texts are tokenized on the event loop, and many of them would block it
        vectors = await self._evaluate(texts)
        embeddings = []
        for index, (vector, tokens) in enumerate(zip(vectors, texts, strict=True)):
            # Packed floats, since a list would have an object for each number.
            values = array("f", (vector if raw else normalized(vector)).tobytes())
            embeddings.append(Embedding(values, len(tokens)))
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        return embeddings

    def step(self) -> int | None:
        """Return the number of evaluated batches; None while there is no work."""
        return self._engine.step()

    async def rerank(self, query: str, documents: Sequence[str], /) -> DocumentScores:
        """Return how well each document fits the query."""
        if not self._ranks:
            raise UnsupportedError("this model does not support reranking")
        pairs = []
        for document in documents:
            pairs.append(self._native_calls.call(self._pair, query, document))
            await asyncio.sleep(0)  # as in `embed`
        vectors = await self._evaluate(pairs)
        return DocumentScores([float(vector[0]) for vector in vectors], sum(map(len, pairs)))

    def _pair(self, query: str, document: str) -> list[int]:
        """Return the tokens of a query and a document in the layout that the model was trained on."""
        template = self._weights.rerank_template
        vocabulary = self._vocabulary
        if template:
            text = template.replace("{query}", query).replace("{document}", document)
            return vocabulary.tokenize(text, add_special=False, parse_special=True)
        # llama.cpp's own layout for rerankers without a template: BOS query EOS SEP document EOS, as far as the model
        # has them.
        end = [vocabulary.eos if vocabulary.eos >= 0 else vocabulary.sep] if vocabulary.adds_eos else []
        return [
            *([vocabulary.bos] if vocabulary.adds_bos else []),
            *vocabulary.tokenize(query, add_special=False, parse_special=False),
            *end,
            *([vocabulary.sep] if vocabulary.adds_sep else []),
            *vocabulary.tokenize(document, add_special=False, parse_special=False),
            *end,
        ]

    async def _evaluate(self, texts: list[list[int]]) -> list[NDArray[np.float32]]:
        for tokens in texts:
            if not tokens:
                raise InvalidRequestError("Input content cannot be empty")
            if len(tokens) > self._limit:
                raise PromptTooLongError(len(tokens), self._limit)
        if not texts:
            return []
        # Results may come in any order, since the queue interleaves requests; each carries its index.
        job = Job()
        self._engine.submit(job, texts)
        try:
            vectors = dict([await job.results.get() for _ in texts])
        finally:
            # Drops the texts of a request that was cancelled. After the last vector it does nothing.
            self._engine.cancel(job)
        return [vectors[index] for index in range(len(texts))]

    def _close_engine(self) -> None:
        self._engine.close()
