"""The output items of recent answers of /v1/responses, which later requests may name by their ids.

Clients of that API may send {"type": "item_reference", "id": ID} in place of an item that an earlier answer gave. The
bridge keeps the newest items in memory, up to a number of bytes; a restart forgets them. Ids are random numbers of 80
bits, so that one client cannot name another's items.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from puna_rest.errors import RestError

_CALL: Final = {"call_id": "", "name": "", "arguments": ""}


class Items:
    """Output items by id, the oldest first. limit: bytes of JSON that are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()
        self._bytes = 0

    def keep(self, output: Sequence[dict[str, Any]]) -> None:
        """Keep the items of an answer; the oldest items make room for them."""
        for item in output:
            size = len(json.dumps(item))
            self._kept[item["id"]] = size, item
            self._bytes += size
        while self._bytes > self._limit:
            self._bytes -= self._kept.popitem(last=False)[1][0]

    def forget(self, output: Sequence[dict[str, Any]]) -> None:
        """Do nothing: the client asks for an answer that is not kept."""

    def resolve(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Replace references by the items that they name.

        RestError: an item is not kept, or all together are larger than everything that is kept.
        """
        found: list[Mapping[str, Any]] = []
        room = self._limit
        for index, item in enumerate(items):
            if item["type"] != "item_reference":
                found.append(item)
                continue
            size, named = self._named(index, item["id"])
            room -= size
            if room < 0:
                raise RestError(400, f"input[{index}]: the items that are referred to exceed {self._limit} bytes")
            found.append(named)
        return found

    def _named(self, index: int, item_id: str) -> tuple[int, Mapping[str, Any]]:
        if item_id not in self._kept:
            text = f"input[{index}]: no item with id {item_id[:64]!r} is kept; send the item instead of a reference"
            raise RestError(404, text)
        self._kept.move_to_end(item_id)
        size, item = self._kept[item_id]
        return size, _CALL | item


ITEMS: Final = web.AppKey("items", Items)
