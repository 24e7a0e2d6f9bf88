import pytest
from tests.rest_bridge.decoding import decoded

from puna_rest.bodies import anthropic
from puna_rest.translate.anthropic.estimate import estimate


def of(**body):
    return estimate(*decoded(anthropic.MESSAGES, body))


def said(content, role="user"):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, 0),
        ({"messages": [said("", role="")]}, 1),
        ({"system": ""}, 1),
        ({"messages": [said("x" * 36)]}, 10),
        ({"messages": [said("é" * 18)]}, 10),
        ({"messages": [said([{"type": "text", "text": "x" * 18}, {"type": "thinking", "thinking": "x" * 18}])]}, 10),
        ({"system": "x" * 40}, 10),
        ({"system": [{"type": "text", "text": "x" * 40}, 3]}, 10),
        ({"tools": [{"name": "ab", "description": "cd", "input_schema": {"a": 1}}]}, 3),
    ],
)
def test_a_quarter_of_the_bytes(body, tokens):
    assert of(**body) == tokens


def test_calls_and_results_count_as_they_are_written():
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {"b": 1.0}}
    written = '{"type":"tool_use","id":"1","name":"f","input":{"b":1}}'
    assert of(messages=[said([call])]) == (len("user") + len(written)) // 4
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "ok"}], "is_error": True}
    written = '{"type":"tool_result","tool_use_id":"1","content":[{"text":"ok","type":"text"}],"is_error":true}'
    assert of(messages=[said([result])]) == (len("user") + len(written)) // 4


def test_images_do_not_count():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 4000}}
    assert of(messages=[said([image])]) == 1
