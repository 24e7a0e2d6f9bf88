import pytest

from puna.errors import InvalidRequestError
from puna.rpc import json_fields
from puna_client.v1 import message_pb2


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ('{"a":1', "tools[1].parameters_json is not JSON: "),
        ("[1]", "tools[1].parameters_json is not a JSON object"),
        ('{"required":{}}', 'tools[1].parameters_json: "required" is not an array'),
        ('{"properties":[]}', 'tools[1].parameters_json: "properties" is not an object'),
        ('{"properties":{"a":{"anyOf":1}}}', 'tools[1].parameters_json: "anyOf" is not an array'),
        ('{"properties":{"a":{"anyOf":[{"enum":"b"}]}}}', 'tools[1].parameters_json: "enum" is not an array'),
        ('{"a":' * 300 + "1" + "}" * 300, "tools[1].parameters_json is not JSON: it is nested deeper than 200 levels"),
    ],
)
def test_a_tool_that_no_template_could_write_is_refused_by_its_place(schema, words):
    with pytest.raises(InvalidRequestError) as caught:
        json_fields.tools([message_pb2.Tool(name="a"), message_pb2.Tool(name="b", parameters_json=schema)])
    assert str(caught.value).startswith(words)


def test_honest_tools_keep_their_text():
    schema = '{"type": "object", "required": null, "properties": {"a": {"type": ["string", "null"], "enum": ["x"]}}}'
    (tool,) = json_fields.tools([message_pb2.Tool(name="a", parameters_json=schema)])
    assert tool.parameters == schema


@pytest.mark.parametrize(("text", "read"), [("", "{}"), ("null", "null"), ('{"a": 1}', '{"a": 1}')])
def test_arguments_are_an_object_or_nothing(text, read):
    assert json_fields.arguments(text) == read
    with pytest.raises(InvalidRequestError, match=r"^tool_calls\.arguments_json is not a JSON object$"):
        json_fields.arguments("[1]")
