import json

from puna.messages import Tool
from puna.prompt import tool_schema


def tool(schema: object, **more: str) -> Tool:
    return Tool(name="get", parameters=json.dumps(schema), **more)


def test_unknown_fields_are_lost_and_known_ones_come_in_the_order_of_the_struct() -> None:
    schema = {"properties": {}, "additionalProperties": False, "required": ["a"], "type": "object"}
    assert list(tool_schema.reduced(tool(schema))["function"]["parameters"]) == ["type", "required", "properties"]


def test_properties_keep_the_order_of_the_client_and_free_json_is_sorted() -> None:
    schema = {"properties": {"b": {"items": {"z": 1, "a": 2}}, "a": {}}}
    properties = tool_schema.reduced(tool(schema))["function"]["parameters"]["properties"]
    assert list(properties) == ["b", "a"]
    assert list(properties["b"]["items"]) == ["a", "z"]


def test_empty_values_are_omitted_as_go_omits_them() -> None:
    schema = {"properties": {"a": {"type": "", "description": "", "enum": [], "required": [], "anyOf": []}}}
    assert tool_schema.parameters(schema) == {"type": "", "properties": {"a": {}}}
    assert "description" not in tool_schema.reduced(tool({}))["function"]


def test_one_type_in_a_list_is_that_type() -> None:
    assert tool_schema.property_({"type": ["string"]}) == {"type": "string"}
    assert tool_schema.types_of({"type": ["string", "null"]}) == ["string", "null"]


def test_numbers_are_floats_that_print_as_go_prints_them() -> None:
    enum = tool_schema.property_(tool_schema.parsed('{"enum": [1, 2.5, 1e21]}'))["enum"]
    assert [type(each) for each in enum] == [float, float, float]
    assert json.dumps(tool_schema.as_printed(enum)) == "[1, 2.5, 1e+21]"


def test_an_unknown_tool_has_no_properties() -> None:
    given = [tool({"properties": {"a": {"type": "string"}}})]
    assert tool_schema.properties_of("get", given) == {"a": {"type": "string"}}
    assert tool_schema.properties_of("put", given) == {}
    assert tool_schema.properties_of("get", [Tool(name="get")]) == {}
