import json
import re

import pytest

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.json_schema import tighten_schema


def tight(schema):
    return json.loads(tighten_schema(json.dumps(schema)))


def test_a_schema_that_can_be_trusted_is_left_as_it_is_in_its_order():
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"enum": [1, None]}}, "required": ["b"]}
    schema["additionalProperties"] = False
    assert tighten_schema(json.dumps(schema)) == json.dumps(schema)


def test_listed_properties_are_all_there_are_unless_told():
    inner = {"properties": {"x": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"list": {"type": "array", "items": inner}}}
    closed = tight(schema)
    assert closed["additionalProperties"] is False
    assert closed["properties"]["list"]["items"]["additionalProperties"] is False
    assert tight(schema | {"additionalProperties": True})["additionalProperties"] is True
    assert "additionalProperties" not in tight({"type": "object"})


def test_parts_of_a_whole_leave_room_for_each_other():
    schema = {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    assert tight(schema) == schema


def test_options_of_the_grammar_s_maker_are_not_the_client_s_to_set():
    assert tight({"type": "string", "x-guidance": {"lenient": True}}) == {"type": "string"}


def test_what_means_nothing_is_not_refused():
    assert tight({"type": "array", "uniqueItems": False}) == {"type": "array"}


def test_excluded_bounds_are_kept_out():
    found = tight({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": -3, "minimum": -10})
    assert found.keys() == {"type", "minimum", "maximum"}
    assert found["minimum"] > 0
    assert found["maximum"] < -3


def test_bounds_beyond_exact_floats_are_narrowed():
    found = tight({"type": "integer", "minimum": -(2**63), "maximum": 2**63})
    assert -(2**63) < found["minimum"] <= -(10**18)
    assert 10**18 <= found["maximum"] < 2**63


@pytest.mark.parametrize(("text", "fits"), [("2024-02-29", True), ("2023-02-29", False), ("0000-01-01", False)])
def test_dates_follow_the_calendar(text, fits):
    patterns = [each["pattern"] for each in tight({"type": "string", "format": "date"})["allOf"]]
    assert all(re.search(pattern, text) for pattern in patterns) is fits


def test_negated_classes_hold_no_control_characters():
    assert re.search(tight({"type": "string", "pattern": '^[^"]$'})["pattern"], "\n") is None


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "string", "pattern": r"\x00"}, "pattern"),
        ({"type": "string", "pattern": "[]"}, "pattern"),
        ({"type": "object", "minProperties": 2, "required": ["a"]}, "minProperties"),
        ({"type": "integer", "exclusiveMinimum": 2**60}, "exclusiveMinimum"),
        ({"properties": {"a": {"minimum": 10**19}}}, "minimum"),
    ],
)
def test_what_cannot_be_enforced_is_named(schema, keyword):
    with pytest.raises(InvalidRequestError, match=f'"{keyword}"'):
        tight(schema)


@pytest.mark.parametrize("text", ["{", '{"minimum": NaN}', '{"a":' * 5000 + "1" + "}" * 5000])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        tighten_schema(text)
