"""Ranks documents by relevance to a query."""

from collections.abc import Sequence
from typing import Final

from puna.backend import UnsupportedError as BackendUnsupportedError
from puna.errors import ContextOverflowError, PunaError, RankingUnsupportedError
from puna.runtime.requirements import Lease, LeaseKind
from puna.serving.access import Access, OnProgress
from puna.serving.answers import Ranking, Usage
from puna.serving.clock import Clock
from puna.serving.lengths import head, is_long
from puna.serving.requests import RerankRequest
from puna.serving.sequence_runner import overflow_text, translating_errors

AT_ONCE: Final = 256
"""Number of documents that are ranked in one call; each is copied together with the query."""
SLACK: Final = 8
"""Tokens by which a document that was cut may be longer between its neighbours than by itself."""


async def rerank(access: Access, request: RerankRequest, on_progress: OnProgress) -> Ranking:
    """Rank documents by relevance to a query.

    Raises what Access.find and ModelPool.lease raise, OptionTypeError, RankingUnsupportedError, and
    ContextOverflowError if the query, or a document that may not be truncated, is too long.
    """
    clock = Clock(request.options.start_ns)
    found = await access.find(request.model)
    access.refuse_remote(found)
    options = access.options_of(found.model, request.options)
    async with access.lease(found.model, options, request.options, on_progress, LeaseKind.CALL) as lease:
        clock.model_ready()
        ranker = _Ranker(lease, request.query)
        documents: Sequence[str] = request.documents
        if request.truncate and lease.facts.tokenizer:
            documents = [await ranker.fitting(each) for each in documents]
        await _check_fits(lease, (request.query, *documents))
        scores: list[float] = []
        # At least one call, so that a model that does not rank is refused also without documents.
        for start in range(0, max(len(documents), 1), AT_ONCE):
            scores += await ranker.scores(documents[start : start + AT_ONCE])
    # The sort is stable: documents of equal score keep the client's order.
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return Ranking(
        results=tuple(ranked[: request.top_n or None]),
        usage=Usage(prompt_tokens=ranker.token_count),
        timings=clock.timings(),
    )


class _Ranker:
    """Scores documents against one query."""

    def __init__(self, lease: Lease, query: str) -> None:
        self._lease, self._query = lease, query
        self._room = -1
        """Tokens that a document may have; -1: not known yet."""
        self.token_count = 0
        """Tokens that were evaluated so far."""

    async def scores(self, documents: Sequence[str]) -> Sequence[float]:
        """Return the documents' scores, in order."""
        try:
            with translating_errors():
                found = await self._lease.model.rerank(self._query, documents)
        except PunaError as error:
            if isinstance(error.__cause__, BackendUnsupportedError):
                raise RankingUnsupportedError from error
            raise
        self.token_count += found.token_count
        return found.scores

    async def fitting(self, document: str) -> str:
        """Return a document, cut at its end if it does not fit beside the query. Called before `scores`."""
        facts, model = self._lease.facts, self._lease.model
        limit = facts.embedding_tokens or facts.context_length
        # A token stands for at least one byte, so two short texts need not be counted, whatever the layout adds.
        if not limit or len(document.encode()) + len(self._query.encode()) + limit // 2 <= limit:
            return document
        if self._room < 0:
            # Only the backend knows the layout of query and document, so an empty document shows how much it takes.
            await self.scores([""])
            used, self.token_count = self.token_count, 0
            self._room = max(limit - used - SLACK, 0)
        tokens = (await head(model, document, self._room + 1)).tokens
        if len(tokens) <= self._room:
            return document
        # The cut may fall inside a character, whose bytes are then dropped.
        return b"".join(await model.detokenize(tokens[: self._room], special=True)).decode(errors="ignore")


async def _check_fits(lease: Lease, texts: Sequence[str]) -> None:
    """Raise ContextOverflowError for a text that is too long to be tokenized whole and does not fit the context."""
    limit = lease.facts.context_length
    if not (lease.facts.tokenizer and limit):
        return
    for text in texts:
        if is_long(text, limit) and not (found := await head(lease.model, text, limit + 1)).complete:
            raise ContextOverflowError(overflow_text(len(found.tokens), limit, at_least=True))
