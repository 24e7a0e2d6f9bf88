"""Embeddings and reranking of the tiny model."""

import math
from collections.abc import Sequence

import numpy as np
from tests.plugins.mutants.vocabulary import Vocabulary

from puna.backend import DocumentScores, Embedding, PromptTooLongError


class EmbeddingMixin:
    """The sum of random vectors of the tokens at their places, and the overlap of words."""

    vocabulary: Vocabulary
    dimensions = 8

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        batch = [self.embedding_tokens(each) for each in inputs]
        for tokens in batch:
            self.check_embedding(tokens)
        return [self.embedding(tokens, raw=raw) for tokens in batch]

    def embedding_tokens(self, text: str | Sequence[int]) -> list[int]:
        if isinstance(text, str):
            return self.vocabulary.tokenize(text, add_special=True, parse_special=True)
        self.vocabulary.check(tuple(text))
        return list(text)

    def check_embedding(self, tokens: list[int]) -> None:
        if len(tokens) > self.facts.embedding_tokens:
            raise PromptTooLongError(len(tokens), self.facts.embedding_tokens)

    def vector(self, tokens: list[int]) -> list[float]:
        total = np.zeros(self.dimensions)
        for place, token in enumerate(tokens):
            total += np.random.default_rng(token * 1000 + place).normal(size=self.dimensions)
        return [float(each) for each in total]

    def embedding(self, tokens: list[int], *, raw: bool) -> Embedding:
        values = self.vector(tokens)
        length = 1.0 if raw else self.length(values)
        return Embedding([each / length for each in values], len(tokens))

    def length(self, values: list[float]) -> float:
        return math.hypot(*values) or 1.0

    async def rerank(self, query: str, documents: Sequence[str], /) -> DocumentScores:
        return DocumentScores([self.score(query, document) for document in documents])

    def score(self, query: str, document: str) -> float:
        one, other = set(query.lower().split()), set(document.lower().split())
        return 4.0 * len(one & other) / len(one | other) - len(document) / 100
