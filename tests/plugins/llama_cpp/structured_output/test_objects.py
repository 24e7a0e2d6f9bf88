import pytest

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.objects import (
    list_required_properties,
    make_resolver,
    rewrite_one_of,
    rewrite_property_names,
    rewrite_unique_items,
)

ROOT = {"$defs": {"Cat": {"type": "object"}, "a/b~c": {"const": 1}, "Loop": {"$ref": "#/$defs/Loop"}}}
RESOLVE = make_resolver(ROOT)


def test_references_are_followed_by_their_escapes():
    assert RESOLVE({"$ref": "#/$defs/Cat", "description": "a cat"}) == {"type": "object"}
    assert RESOLVE({"$ref": "#/$defs/a~1b~0c"}) == {"const": 1}


@pytest.mark.parametrize(
    "schema", [{"$ref": "#/nowhere"}, {"$ref": "https://example.com"}, {"$ref": "#", "minimum": 1}, True, {}]
)
def test_what_cannot_be_followed_is_left(schema):
    assert RESOLVE(schema) == schema


def test_a_reference_to_itself_ends():
    assert RESOLVE({"$ref": "#/$defs/Loop"}) == {"$ref": "#/$defs/Loop"}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (True, {}),
        ({"type": "string"}, {}),
        (False, {"additionalProperties": False}),
        ({"enum": ["a", "b"]}, {"properties": {"a": True, "b": True}, "additionalProperties": False}),
        ({"pattern": "^x"}, {"patternProperties": {"^x": True}, "additionalProperties": False}),
        ({"maxLength": 3}, {"patternProperties": {"^(?s:.{0,3})$": True}, "additionalProperties": False}),
        (
            {"anyOf": [{"const": "a"}, {"const": "b"}]},
            {"properties": {"a": True, "b": True}, "additionalProperties": False},
        ),
    ],
)
def test_names_are_said_in_other_keywords(names, found):
    schema = {"propertyNames": names}
    rewrite_property_names(schema, RESOLVE)
    assert schema == found


def test_names_that_no_keyword_says_are_refused():
    with pytest.raises(InvalidRequestError, match="propertyNames"):
        rewrite_property_names({"propertyNames": {"pattern": "a", "minLength": 3}}, RESOLVE)


def test_required_names_are_listed():
    schema = {"properties": {"a": {"type": "null"}}, "required": ["b", "a"]}
    list_required_properties(schema)
    assert schema["properties"] == {"a": {"type": "null"}, "b": {}}


def test_sets_of_few_values_are_listed_in_their_order():
    schema = {"type": "array", "uniqueItems": True, "items": {"enum": ["b", "a", "b"]}, "minItems": 1}
    rewrite_unique_items(schema, RESOLVE)
    assert schema == {"enum": [["b"], ["a"], ["b", "a"]]}


def test_sets_of_many_values_keep_the_keyword_that_is_refused():
    schema = {"type": "array", "uniqueItems": True, "items": {"enum": list(range(9))}}
    rewrite_unique_items(schema, RESOLVE)
    assert schema["uniqueItems"] is True


def test_objects_are_told_apart_by_a_property_that_is_then_required():
    options = [{"properties": {"kind": {"const": kind}, kind: {}}} for kind in ("cat", "dog")]
    schema = {"oneOf": options}
    rewrite_one_of(schema, RESOLVE)
    assert [option["required"] for option in schema["anyOf"]] == [["kind"], ["kind"]]
    assert all(option["additionalProperties"] is False for option in schema["anyOf"])
    assert "oneOf" not in schema


def test_objects_that_may_fit_two_options_keep_the_keyword_that_is_refused():
    schema = {"oneOf": [{"properties": {"a": {}}, "additionalProperties": True}, {"properties": {"b": {}}}]}
    before = dict(schema)
    rewrite_one_of(schema, RESOLVE)
    assert schema == before
