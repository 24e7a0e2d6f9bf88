import json

import pytest

from puna.errors import ToolsRefusedError
from puna.messages import Tool
from puna.prompt.jinja.tools import tool_objects

# as llama.cpp under Ollama showed it to a template
KEPT = (
    '{"type": "object", "$defs": {"K": {"title": "t", "type": "q"}}, "items": {"a": 2.5, "z": 1}, "required": ["p"], '
    '"properties": {"p": {"anyOf": [{"type": "string"}], "type": ["object", "null"], "items": {"a": 1, "foo": 1, '
    '"type": "string"}, "description": "d", "enum": [1, "\u00e9<", null, 2], "properties": {"x": {"type": "integer"}}, '
    '"required": ["x"]}, "e": {}}}'
)
SENT = {
    "properties": {
        "p": {
            "required": ["x"],
            "properties": {"x": {"type": "integer", "default": 3}},
            "enum": [1, "\u00e9<", None, 2.0],
            "description": "d",
            "items": {"type": "string", "foo": 1, "a": 1.0},
            "type": ["object", "null"],
            "anyOf": [{"type": "string", "title": "x"}],
            "format": "z",
        },
        "e": {},
    },
    "required": ["p"],
    "items": {"z": 1, "a": 2.50},
    "$defs": {"K": {"type": "q", "title": "t"}},
    "type": "object",
    "additionalProperties": False,
}


def test_only_what_ollama_s_structs_hold_is_kept_in_their_order():
    (tool,) = tool_objects([Tool(name="c", parameters=json.dumps(SENT))])
    assert json.dumps(tool["function"]["parameters"], ensure_ascii=False) == KEPT


def test_a_tool_without_parameters_has_an_empty_type_and_no_properties():
    assert tool_objects([Tool(name="a")]) == [
        {
            "type": "function",
            "function": {"name": "a", "description": "", "parameters": {"type": "", "properties": None}},
        }
    ]


def test_empty_properties_of_a_property_are_kept_since_go_omits_only_absent_ones():
    schema = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}
    (tool,) = tool_objects([Tool(name="a", parameters=json.dumps(schema))])
    assert tool["function"]["parameters"] == schema


def test_a_type_that_nobody_knows_is_refused_in_llama_cpps_words():
    with pytest.raises(ToolsRefusedError) as caught:
        tool_objects([Tool(name="a"), Tool(name="b", type="zz", parameters='{"type": "object", "properties": {}}')])
    text = json.loads(str(caught.value))["error"]
    assert (text["code"], text["type"]) == (500, "server_error")
    head, _, sent = text["message"].partition("; tools = ")
    assert head == (
        'Failed to parse tools: Unsupported tool type: {"type":"zz","function":{"name":"b",'
        '"parameters":{"type":"object","properties":{}}}}'
    )
    assert sent.startswith('[\n  {\n    "type": "function",\n')
