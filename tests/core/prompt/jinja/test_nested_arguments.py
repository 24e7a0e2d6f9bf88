import pytest

from puna.prompt.jinja.nested_arguments import members

SCHEMA = {
    "properties": {
        "days": {"type": "integer"},
        "place": {"type": "object", "properties": {"zip": {"type": "integer"}}},
        "tags": {"type": "array", "items": {"type": "integer"}},
    }
}


def read(text):
    found, at = members(text, 0, "M", SCHEMA)
    assert at == len(text)
    return found


def test_an_element_without_elements_is_a_text_or_what_the_schema_says():
    assert read("M<city>OsloM</city>M<days>2M</days>") == {"city": "Oslo", "days": 2.0}


def test_an_element_that_begins_with_an_element_is_an_object_with_its_own_schema():
    assert read("M<place>M<zip>12M</zip>M<name>AM</name>M</place>") == {"place": {"zip": 12.0, "name": "A"}}


def test_elements_called_item_make_a_list():
    assert read("M<tags>M<item>1M</item>M<item>2M</item>M</tags>") == {"tags": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("text", "error"), [("M<a>x", "substring not found"), ("M<a>M<b>1M</b>xM</a>", "text between elements")]
)
def test_an_element_without_end_or_with_text_between_its_elements_is_refused(text, error):
    with pytest.raises(ValueError, match=error):
        members(text, 0, "M", SCHEMA)
