"""Pages of lists, by the rules of AIP-158.

A page begins behind the last item of the page before, which its token names by the item's sort key. So the server keeps
no state, a list that changes between two pages shows every item that stays exactly once, and a token has no time limit.
The sort key must be unique and must not change while an item is in the list.
"""

import base64
import binascii
import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar

from puna.errors import InvalidRequestError
from puna.paging import LARGEST_PAGE, ListRequest

DEFAULT_PAGE: Final = 100
"""Items of a page whose request names no size."""
_CHECK_BYTES: Final = 6
_LONGEST_TOKEN: Final = 8192
Key: TypeAlias = tuple[int | str, ...]
"""The sort key of a list. All items have the same types at the same places."""
Item = TypeVar("Item")


def page(
    items: Iterable[Item], key: Callable[[Item], Key], request: ListRequest, selection: Sequence[str]
) -> tuple[list[Item], str]:
    """Return the items of the page that a request asks for, and the token of the next page; empty for the last one.

    Items are sorted by `key`. `selection` has the name of the list and the request's filters: a token counts only in
    requests with the same selection. Raises InvalidRequestError for a negative size and a token that is not from here.
    """
    if request.page_size < 0:
        raise InvalidRequestError("page_size must be at least 0", field="page_size")
    size = min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE)
    ordered = sorted(items, key=key)
    begin = 0
    if request.page_token:
        after = _key(request.page_token, selection)
        try:
            begin = bisect_right(ordered, after, key=key)
        except TypeError:  # the token names a key of other types
            raise _bad_token() from None
    found = ordered[begin : begin + size]
    more = begin + size < len(ordered)
    return found, _token(key(found[-1]), selection) if more else ""


def _token(key: Key, selection: Sequence[str]) -> str:
    data = json.dumps(key, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_check(data, selection) + data).decode().rstrip("=")


def _key(token: str, selection: Sequence[str]) -> Key:
    if len(token) > _LONGEST_TOKEN:
        raise _bad_token()
    try:
        raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise _bad_token() from None
    check, data = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    # The check finds damaged tokens and those of other lists. It protects nothing: a token only chooses a position.
    if check != _check(data, selection):
        raise _bad_token()
    try:
        return tuple(json.loads(data))
    except (ValueError, TypeError, RecursionError):
        raise _bad_token() from None


def _check(data: bytes, selection: Sequence[str]) -> bytes:
    key = hashlib.blake2b(json.dumps(selection).encode()).digest()
    return hashlib.blake2b(data, key=key, digest_size=_CHECK_BYTES).digest()


def _bad_token() -> InvalidRequestError:
    return InvalidRequestError("page_token is not a token of this list and selection", field="page_token")
