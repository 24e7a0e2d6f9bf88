import json

import pytest

from puna.messages import Tool
from puna.prompt.jinja.arguments import Schemas, typed


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "12", "12"),
        ({"type": "integer"}, "12", 12.0),
        ({"type": "integer"}, "twelve", "twelve"),
        ({"type": ["string", "integer"]}, "12", 12.0),
        ({"type": ["string", "integer"]}, "true", "true"),
        ({"type": "boolean"}, "True", True),
        ({"type": "array"}, "['a', 1]", ["a", 1.0]),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "None", None),
        ({"enum": [1, 2]}, "1", 1.0),
        ({}, "1", "1"),
        ({"type": "object"}, "{'a':" * 1000, "{'a':" * 1000),
    ],
)
def test_a_text_takes_a_type_that_the_schema_allows(schema, text, value):
    assert typed(schema, text) == value


def test_a_schema_that_is_no_object_counts_as_empty():
    schemas = Schemas([Tool(name="a", parameters="[1]"), Tool(name="b", parameters="{")])
    assert (schemas.of("a"), schemas.of("b"), schemas.of("c")) == ({}, {}, {})
    assert schemas.value("a", "x", "1") == "1"


def test_the_value_of_an_argument_follows_its_property():
    schemas = Schemas([Tool(name="a", parameters=json.dumps({"properties": {"n": {"type": "number"}}}))])
    assert schemas.value("a", "n", "1.5") == 1.5
    assert schemas.value("a", "other", "1.5") == "1.5"
