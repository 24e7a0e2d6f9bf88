"""Reading of lists whose answers come in pages."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, Self, TypeVar

LARGEST_PAGE: Final = 1000
"""Most items of a page. A request for more gets this many."""


class ListRequest(Protocol):
    """A request for a page."""

    page_size: int
    page_token: str


class Page(Protocol):
    """An answer with the items of a page."""

    next_page_token: str

    def MergeFrom(self, other: Self) -> None:  # noqa: N802 - protobuf's name
        """Append the items of another page, and take its other fields."""


Request = TypeVar("Request", bound=ListRequest)
Answer = TypeVar("Answer", bound=Page)


async def read_pages(method: Callable[[Request], Awaitable[Answer]], request: Request) -> Answer:
    """Call a list method until the last page, and return all pages as one answer."""
    request.page_size = LARGEST_PAGE
    answer = await method(request)
    while token := answer.next_page_token:
        request.page_token = token
        # The last page has no token, and merging would leave the old one in place.
        answer.next_page_token = ""
        answer.MergeFrom(await method(request))
    return answer
