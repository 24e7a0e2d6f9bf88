"""Tokenizes, detokenizes and ranks: the operations on text that run no sequence."""

from collections.abc import Sequence
from typing import Final

from puna.backend import InvalidRequestError as BackendInvalidRequestError
from puna.backend import UnsupportedError as BackendUnsupportedError
from puna.errors import ContextOverflowError, InvalidTokenError, PunaError, RankingUnsupportedError, TooLargeError
from puna.runtime.requirements import Lease, LeaseKind
from puna.serving.access import Access, OnProgress, options_of
from puna.serving.answers import Ranking, Tokens
from puna.serving.clock import Clock
from puna.serving.demands import check_tokenizer
from puna.serving.lengths import head, is_long
from puna.serving.requests import RequestOptions, RerankRequest
from puna.serving.sequence_runner import overflow_text, translating_errors

AT_ONCE: Final = 256
"""Number of documents that are ranked in one call; each is copied together with the query."""
LONGEST: Final = "PUNA_MAX_TOKENIZE_CHARACTERS"


async def tokenize(
    access: Access,
    name: str,
    text: str,
    *,
    add_special: bool,
    parse_special: bool,
    with_pieces: bool,
    options: RequestOptions,
    on_progress: OnProgress,
) -> Tokens:
    """Return the tokens of a text.

    Raises TooLargeError, OptionTypeError, and what Access.find and ModelPool.lease raise.
    """
    # The length is checked before the model is looked up, so that a huge text cannot cause a load.
    _check_length("text", len(text), access.settings.limits.max_tokenize_characters)
    found = await access.find(name)
    access.refuse_remote(found)
    async with access.lease(
        found.model, options_of(found.model, options), options, on_progress, LeaseKind.CALL
    ) as lease:
        check_tokenizer(lease.facts)
        with translating_errors():
            ids = await lease.model.tokenize(text, add_special=add_special, parse_special=parse_special)
            pieces = await lease.model.detokenize(ids, special=True) if with_pieces else []
        return Tokens(ids=tuple(ids), pieces=tuple(pieces), context_length=lease.facts.context_length)


async def detokenize(
    access: Access, name: str, ids: Sequence[int], *, special: bool, options: RequestOptions, on_progress: OnProgress
) -> bytes:
    """Return the bytes of tokens, joined. Raises what `tokenize` raises, and InvalidTokenError."""
    _check_length("token_ids", len(ids), access.settings.limits.max_tokenize_characters)
    found = await access.find(name)
    access.refuse_remote(found)
    async with access.lease(
        found.model, options_of(found.model, options), options, on_progress, LeaseKind.CALL
    ) as lease:
        check_tokenizer(lease.facts)
        try:
            with translating_errors():
                return b"".join(await lease.model.detokenize(ids, special=special))
        except PunaError as error:
            # The contract has one error for every invalid request. Here only an id can be invalid.
            if isinstance(error.__cause__, BackendInvalidRequestError):
                raise InvalidTokenError(str(error)) from error
            raise


async def rerank(access: Access, request: RerankRequest, on_progress: OnProgress) -> Ranking:
    """Rank documents by relevance to a query. Raises what `tokenize` raises, and RankingUnsupportedError."""
    clock = Clock(request.options.start_ns)
    found = await access.find(request.model)
    access.refuse_remote(found)
    options = options_of(found.model, request.options)
    async with access.lease(found.model, options, request.options, on_progress, LeaseKind.CALL) as lease:
        clock.model_ready()
        await _check_fits(lease, (request.query, *request.documents))
        scores: list[float] = []
        try:
            with translating_errors():
                # At least one call, so that a model that does not rank is refused also without documents.
                for start in range(0, max(len(request.documents), 1), AT_ONCE):
                    scores += await lease.model.rerank(request.query, request.documents[start : start + AT_ONCE])
        except PunaError as error:
            if isinstance(error.__cause__, BackendUnsupportedError):
                raise RankingUnsupportedError from error
            raise
    # The sort is stable: documents of equal score keep the client's order.
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return Ranking(results=tuple(ranked[: request.top_n or None]), timings=clock.timings())


def _check_length(field: str, length: int, most: int) -> None:
    """Raise TooLargeError if a field exceeds the limit of TokenizeService."""
    if length > most:
        raise TooLargeError(f"{field} has {length} items, at most {most} are taken; {LONGEST} changes the limit")


async def _check_fits(lease: Lease, texts: Sequence[str]) -> None:
    """Raise ContextOverflowError for a text that is too long to be tokenized whole and does not fit the context."""
    limit = lease.facts.context_length
    if not (lease.facts.tokenizer and limit):
        return
    for text in texts:
        if is_long(text, limit) and not (found := await head(lease.model, text, limit + 1)).complete:
            raise ContextOverflowError(overflow_text(len(found.tokens), limit, at_least=True))
