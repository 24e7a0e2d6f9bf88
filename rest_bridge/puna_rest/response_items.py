"""The store of output items of /v1/responses.

A client may send {"type": "item_reference", "id": ID} in place of an output item of an earlier response. The bridge
keeps the newest items in memory, up to a limit in bytes, and loses them on restart. Ids are random numbers of 80 bits,
so that a client cannot guess the ids of another client's items.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from puna_rest.errors import RestError

_CALL: Final = {"call_id": "", "name": "", "arguments": ""}


class Items:
    """Output items by id, oldest first. `limit` is in bytes of JSON."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()
        self._bytes = 0

    def keep(self, output: Sequence[dict[str, Any]]) -> None:
        """Keep the items of a response and drop the oldest items beyond the limit."""
        for item in output:
            size = len(json.dumps(item))
            self._kept[item["id"]] = size, item
            self._bytes += size
        while self._bytes > self._limit:
            self._bytes -= self._kept.popitem(last=False)[1][0]

    def forget(self, output: Sequence[dict[str, Any]]) -> None:
        """Keep nothing. Takes the place of `keep` for requests with `store: false`."""

    def resolve(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the items with each reference replaced by the item that it names.

        RestError: an item is unknown, or the items together exceed the limit.
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
