import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import message_pb2, options_pb2
from puna_rest.bodies.responses import RESPONSES
from puna_rest.errors import RestError
from puna_rest.translate.responses.request import has_web_search, request


def of(*items, **fields):
    return request(*decoded(RESPONSES, {"model": "m", "input": list(items)} | fields), 0)


def said(role, text):
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def call(call_id, arguments="{}", name="f"):
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id, text="ok"):
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def turns(*items, **fields):
    return [(each.role, each.content) for each in of(*items, **fields).messages]


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"temperature": 1}),
        (
            {"temperature": 0, "top_p": 0.5, "max_output_tokens": 7},
            {"temperature": 0, "top_p": 0.5, "num_predict": 7},
        ),
    ],
)
def test_options(fields, options):
    assert json.loads(of(**fields).options.options_json) == options


def test_instructions_come_first():
    assert turns(said("USER", "hi"), instructions="be brief") == [("system", "be brief"), ("user", "hi")]
    assert turns(input="hi") == [("user", "hi")]


def test_reasoning_belongs_to_the_next_message_of_the_model():
    thought = {"type": "reasoning", "encrypted_content": "t"}
    (message,) = of(thought, said("assistant", "a")).messages
    assert (message.thinking, message.content) == ("t", "a")
    (message,) = of(thought, call("1")).messages
    assert (message.thinking, message.tool_calls[0].id) == ("t", "1")
    (message,) = of(thought).messages
    assert (message.role, message.thinking) == ("assistant", "t")


def test_calls_in_a_row_are_one_message():
    first, second = of(call("1"), call("2"), output("1"), output("2"), call("3")).messages[::3]
    assert [each.id for each in first.tool_calls] == ["1", "2"]
    assert [each.id for each in second.tool_calls] == ["3"]


def test_text_between_a_call_and_its_output_joins_the_message_with_the_call():
    found = of(said("assistant", "a"), call("1"), said("assistant", "b"), output("1")).messages
    assert [(each.role, each.content) for each in found] == [("assistant", "a\nb"), ("tool", "ok")]
    found = of(call("1"), said("assistant", "b"), output("other")).messages
    assert [each.role for each in found] == ["assistant", "assistant", "tool"]


@pytest.mark.parametrize("arguments", ["[]", "{", "3"])
def test_arguments_of_earlier_calls_must_be_an_object(arguments):
    with pytest.raises(RestError, match=r"^failed to parse function call arguments: "):
        of(call("1", arguments))


def test_images_and_files():
    content = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:image/png;base64,aGk="},
        {"type": "input_file", "file_data": "data:text/plain;base64,aGk="},
    ]
    (message,) = of({"role": "user", "content": content}).messages
    assert [part.media.data or part.text for part in message.parts] == ["a", b"hi", "hi"]
    result = {"type": "function_call_output", "call_id": "1", "output": content[:2]}
    assert [part.WhichOneof("kind") for part in of(call("1"), result).messages[1].parts] == ["text", "media"]
    # Text of an answer may be merged into the message with its call, so it has no parts.
    (message,) = of({"role": "assistant", "content": content[:2]}).messages
    assert (message.content, message.media[0].data) == ("a", b"hi")
    with pytest.raises(RestError, match=r"^file inputs are not currently supported$"):
        of({"role": "user", "content": [{"type": "input_file", "file_id": "x"}]})


def test_a_namespace_prefixes_its_tools():
    inner = {"type": "function", "name": "g", "parameters": {"type": "object"}}
    tools = [{"type": "namespace", "name": "ns", "tools": [inner, {"type": "function", "name": "ns.h"}]}, inner]
    assert [each.name for each in of(tools=tools).tools] == ["ns.g", "ns.h", "g"]


def test_the_builtin_search_replaces_a_tool_of_its_name():
    tools = [{"type": "web_search"}, {"type": "function", "name": "web_search"}, {"type": "function", "name": "f"}]
    assert [each.name for each in of(tools=tools).tools] == ["web_search", "f"]
    assert has_web_search(decoded(RESPONSES, {"tools": tools})[1])
    assert not has_web_search(decoded(RESPONSES, {"tools": tools[1:]})[1])


def test_schemas_are_sorted_and_checked():
    (tool,) = of(tools=[{"type": "function", "name": "f", "parameters": {"type": "object", "$defs": {}}}]).tools
    assert tool.parameters_json == '{"$defs":{},"type":"object"}'
    with pytest.raises(RestError, match=r"^failed to unmarshal tool parameters: json: cannot unmarshal number"):
        of(tools=[{"type": "function", "name": "f", "parameters": {"required": 3}}])


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        (None, None),
        ({"format": {"type": "text"}}, None),
        (
            {"format": {"type": "json_schema", "schema": {"type": "string"}}},
            options_pb2.OutputConstraint(json_schema='{"type": "string"}'),
        ),
    ],
)
def test_structured_output(text, constraint):
    options = of(text=text).options
    assert (options.constraint if options.HasField("constraint") else None) == constraint


def test_tool_choice_and_effort():
    found = of(tool_choice="required", reasoning={"effort": "low"})
    assert found.tool_choice == message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_REQUIRED)
    assert found.options.thinking == options_pb2.THINKING_LEVEL_LOW
    with pytest.raises(RestError, match=r"^invalid reasoning value"):
        of(reasoning={"effort": "odd"})
