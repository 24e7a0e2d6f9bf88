import pytest
from tests.rest_bridge.decoding import decoded

from puna.go.json_scanner import BodyError
from puna_rest.bodies.anthropic import MESSAGES


def message(text):
    return decoded(MESSAGES, f'{{"messages": [{text}]}}')[1]["messages"][0]


@pytest.mark.parametrize(("content", "text"), [('"hi"', "hi"), ("null", ""), ('""', "")])
def test_a_text_is_one_block(content, text):
    (block,) = message(f'{{"role": "user", "content": {content}}}')["content"]
    assert (block["type"], block["text"], block["thinking"]) == ("text", text, None)


def test_blocks_have_all_fields():
    (block,) = message('{"content": [{"type": "tool_use", "id": "1", "input": {"a": 1.0}}]}')["content"]
    assert (block["id"], block["input"], block["text"], block["citations"]) == ("1", '{"a": 1.0}', None, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"role": "user"}', "unexpected end of JSON input"),
        (
            '{"content": 3}',
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages of type "
            "[]anthropic.ContentBlock",
        ),
        (
            '{"content": [{"type": 3}]}',
            "json: cannot unmarshal number into Go struct field MessagesRequest.messages.type of type string",
        ),
        ('{"content": [{"input": "a"}]}', "Value looks like object, but can't find closing '}' symbol"),
    ],
)
def test_malformed_messages(text, error):
    with pytest.raises(BodyError) as caught:
        message(text)
    assert error in str(caught.value)


def test_a_message_of_another_kind_is_named_by_its_struct():
    with pytest.raises(BodyError, match=r'type struct \{ Role string "json:\\"role\\""; Content json.RawMessage'):
        message("3")
