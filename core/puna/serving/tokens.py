"""Tokenizes and detokenizes texts."""

from collections.abc import Sequence
from typing import Final

from puna.backend import InvalidRequestError as BackendInvalidRequestError
from puna.errors import InvalidTokenError, PunaError, TooLargeError
from puna.runtime.requirements import LeaseKind
from puna.serving.access import Access, OnProgress
from puna.serving.answers import Tokens
from puna.serving.demands import check_tokenizer
from puna.serving.requests import RequestOptions
from puna.serving.sequence_runner import translating_errors

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
        found.model, access.options_of(found.model, options), options, on_progress, LeaseKind.CALL
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
        found.model, access.options_of(found.model, options), options, on_progress, LeaseKind.CALL
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


def _check_length(field: str, length: int, most: int) -> None:
    """Raise TooLargeError if a field exceeds the limit of TokenizeService."""
    if length > most:
        raise TooLargeError(f"{field} has {length} items, at most {most} are taken; {LONGEST} changes the limit")
