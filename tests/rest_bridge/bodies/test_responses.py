import pytest
from tests.rest_bridge.decoding import decoded

from puna.go.json_scanner import BodyError
from puna_rest.bodies.responses import RESPONSES


def given(text):
    return decoded(RESPONSES, f'{{"input": {text}}}')[1]["input"]


@pytest.mark.parametrize(("text", "value"), [('"hi"', "hi"), ("null", ""), ('""', "")])
def test_an_input_may_be_a_text(text, value):
    assert given(text) == {"text": value, "items": []}


@pytest.mark.parametrize(
    ("item", "fields"),
    [
        ('{"role": "user", "content": "hi"}', {"type": "message", "content": [{"type": "input_text", "text": "hi"}]}),
        ('{"type": "message", "role": "user", "content": null}', {"content": [{"type": "input_text", "text": ""}]}),
        ('{"type": "message"}', {"content": []}),
        ('{"type": "function_call", "call_id": "1", "arguments": "{}"}', {"call_id": "1", "arguments": "{}"}),
        ('{"type": "function_call_output", "output": "ok"}', {"output": [{"type": "input_text", "text": "ok"}]}),
        ('{"type": "reasoning", "encrypted_content": "t"}', {"encrypted_content": "t", "summary": None}),
        ('{"type": "item_reference", "id": "x"}', {"id": "x"}),
        ('{"type": "web_search_call", "action": {"query": "q"}}', {"action": {"type": "", "query": "q"}}),
    ],
)
def test_items(item, fields):
    (found,) = given(f"[{item}]")["items"]
    assert {name: found[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("3", "input must be a string or array: json: cannot unmarshal number into Go value of type []json.RawMessage"),
        ('[{"type": "odd"}]', 'input[0]: unknown input item type: "odd"'),
        ('[{"role": "user"}, {}]', "input[1]: input item missing required 'type' field"),
        ('[{"role": "user", "content": [{"type": "video"}]}]', "input[0]: content[0]: unknown content type: video"),
        (
            '[{"type": "function_call_output", "output": 3}]',
            "input[0]: output must be a string or array: "
            "json: cannot unmarshal number into Go value of type []json.RawMessage",
        ),
        (
            '[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": 3}]}]',
            "input[0]: content[0]: "
            "json: cannot unmarshal number into Go struct field ResponsesTextContent.text of type string",
        ),
    ],
)
def test_errors_name_the_index(text, error):
    with pytest.raises(BodyError) as caught:
        given(text)
    assert error in str(caught.value)


def test_tools_may_hold_tools():
    tools = decoded(RESPONSES, '{"tools": [{"type": "namespace", "tools": [{"name": "f"}]}]}')[1]["tools"]
    assert (tools[0]["type"], tools[0]["tools"][0]["name"], tools[0]["tools"][0]["tools"]) == ("namespace", "f", None)
