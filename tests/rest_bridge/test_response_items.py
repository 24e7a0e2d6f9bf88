import pytest

from puna_rest.errors import RestError
from puna_rest.response_items import Items


def reference(name):
    return {"type": "item_reference", "id": name}


def test_the_oldest_items_make_room():
    items = Items(limit=200)
    for name in ("a", "b", "c"):
        items.keep([{"type": "message", "id": name, "content": "x" * 40}])
    assert [each["id"] for each in items.resolve([reference("b"), reference("c")])] == ["b", "c"]
    with pytest.raises(RestError, match=r"input\[1\]: no item with id 'a'"):
        items.resolve([{"type": "message"}, reference("a")])


def test_an_answer_larger_than_the_limit_is_not_kept():
    items = Items(limit=10)
    items.keep([{"type": "message", "id": "a", "content": "x" * 40}])
    assert items.resolve([]) == []
    items.keep([])
