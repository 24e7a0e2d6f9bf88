"""Text to tokens and back, and what fits a query best: everything that runs no sequence."""

from collections.abc import Sequence

from puna.backend import InvalidRequestError as BackendInvalidRequestError
from puna.backend import UnsupportedError as BackendUnsupportedError
from puna.errors import InvalidTokenError, PunaError, RankingUnsupportedError
from puna.runtime.wanted import Use
from puna.serving.access import Access, Tell, options_of
from puna.serving.answers import Ranking, Tokens
from puna.serving.clock import Clock
from puna.serving.requests import RequestOptions, RerankRequest
from puna.serving.sequences import translating


async def tokenize(
    access: Access,
    name: str,
    text: str,
    *,
    add_special: bool,
    parse_special: bool,
    with_pieces: bool,
    options: RequestOptions,
    tell: Tell,
) -> Tokens:
    """Return a text's tokens. Errors: those of Access.find and ModelPool.lease, OptionTypeError."""
    found = await access.find(name)
    access.refuse_remote(found)
    async with access.lease(found.model, options_of(found.model, options), options, tell, Use.CALL) as lease:
        with translating():
            ids = await lease.model.tokenize(text, add_special=add_special, parse_special=parse_special)
            pieces = await lease.model.detokenize(ids, special=True) if with_pieces else []
        return Tokens(ids=tuple(ids), pieces=tuple(pieces), context_length=lease.facts.context_length)


async def detokenize(
    access: Access, name: str, ids: Sequence[int], *, special: bool, options: RequestOptions, tell: Tell
) -> bytes:
    """Put tokens together. Errors: as tokenize, and InvalidTokenError."""
    found = await access.find(name)
    access.refuse_remote(found)
    async with access.lease(found.model, options_of(found.model, options), options, tell, Use.CALL) as lease:
        try:
            with translating():
                return b"".join(await lease.model.detokenize(ids, special=special))
        except PunaError as error:
            if isinstance(error.__cause__, BackendInvalidRequestError):
                raise InvalidTokenError(str(error)) from error
            raise


async def rerank(access: Access, request: RerankRequest, tell: Tell) -> Ranking:
    """Order documents. Errors: as tokenize, and RankingUnsupportedError."""
    clock = Clock(request.options.start_ns)
    found = await access.find(request.model)
    access.refuse_remote(found)
    options = options_of(found.model, request.options)
    async with access.lease(found.model, options, request.options, tell, Use.CALL) as lease:
        clock.granted()
        try:
            with translating():
                scores = await lease.model.rerank(request.query, request.documents)
        except PunaError as error:
            if isinstance(error.__cause__, BackendUnsupportedError):
                raise RankingUnsupportedError from error
            raise
    ranked = sorted(enumerate(scores), key=lambda pair: -pair[1])
    return Ranking(results=tuple(ranked[: request.top_n or None]), timings=clock.timings())
