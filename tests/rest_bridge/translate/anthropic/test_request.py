import base64
import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import message_pb2, options_pb2
from puna_rest.bodies import anthropic
from puna_rest.errors import RestError
from puna_rest.translate.anthropic.request import has_web_search, request

PIXELS = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"pixels").decode()}


def of(*messages, **fields):
    body = {"model": "m", "max_tokens": 5, "messages": messages or [{"role": "user", "content": "hi"}]} | fields
    return request(*decoded(anthropic.MESSAGES, body), 0)


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def refusal(*messages, **fields):
    with pytest.raises(RestError) as caught:
        of(*messages, **fields)
    assert caught.value.status == 400
    return str(caught.value)


def text(content):
    return {"type": "text", "text": content}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": ""}, "model is required"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"max_tokens": -1}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages is required"),
    ],
)
def test_required_fields(fields, said):
    assert refusal(**fields) == said


def test_options_are_those_given():
    assert json.loads(of().options.options_json) == {"num_predict": 5}
    found = of(temperature=0, top_p=0.5, top_k=3, stop_sequences=["a"]).options
    assert json.loads(found.options_json) == {
        "num_predict": 5,
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "stop": ["a"],
    }
    assert found.truncate
    assert found.thinking_if_possible


@pytest.mark.parametrize(
    ("thinking", "budget"),
    [
        ({"type": "enabled", "budget_tokens": 9}, 9),
        ({"type": "enabled", "budget_tokens": 2**40}, 2**31 - 1),
        ({"type": "enabled", "budget_tokens": 0}, None),
        ({"type": "enabled", "budget_tokens": -4}, None),
        ({"type": "enabled"}, None),
        ({"type": "disabled", "budget_tokens": 9}, None),
        ({"type": "adaptive", "budget_tokens": 9}, None),
    ],
)
def test_budget_tokens(thinking, budget):
    options = of(thinking=thinking).options
    assert (options.thinking_budget if options.HasField("thinking_budget") else None) == budget


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({}, "UNSPECIFIED"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "ON"),
        ({"thinking": {"type": "disabled"}}, "OFF"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": " High "}}, "HIGH"),
        ({"output_config": {"effort": "xhigh"}}, "HIGH"),
        ({"output_config": {"effort": "max"}}, "MAX"),
        ({"output_config": {"effort": "odd"}}, "UNSPECIFIED"),
    ],
)
def test_thinking(fields, level):
    assert of(**fields).options.thinking == options_pb2.ThinkingLevel.Value(f"THINKING_LEVEL_{level}")


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ({"type": "auto"}, message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_AUTO)),
        ({"type": "any"}, message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_REQUIRED)),
        ({"type": "none"}, message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_NONE)),
        ({"type": "tool", "name": "f"}, message_pb2.ToolChoice(tool_name="f")),
        ({"type": "tool"}, None),
        (None, None),
    ],
)
def test_tool_choice(given, choice):
    found = of(tool_choice=given)
    assert (found.tool_choice if found.HasField("tool_choice") else None) == choice


@pytest.mark.parametrize(
    ("system", "content"), [("s", ["s"]), ([text("a"), text("b")], ["ab"]), ("", []), (None, []), (3, [])]
)
def test_system(system, content):
    found = of(system=system).messages
    assert [each.content for each in found if each.role == "system"] == content


def test_results_come_before_what_the_user_says_and_calls_before_their_results():
    result = {"type": "tool_result", "tool_use_id": "1", "content": "ok"}
    found = of(user(text("next"), result)).messages
    assert [(each.role, each.content) for each in found] == [("tool", "ok"), ("user", "next")]
    call = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}
    (said,) = of({"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, text("a"), call]}).messages
    assert (said.thinking, said.content, said.tool_calls[0].arguments_json) == ("t", "a", '{"a": 1}')


def test_documents_are_paragraphs_of_their_own():
    document = {"type": "document", "title": "T", "source": {"type": "text", "data": "body"}}
    (found,) = of(user(text("a"), text("b"), document, text("c"))).messages
    assert found.content == "ab\n\nT\nbody\n\nc"


def test_a_result_may_hold_images_documents_and_references():
    blocks = [
        text("a"),
        {"type": "image", "source": PIXELS},
        {"type": "tool_reference", "tool_name": "g"},
        {"type": "search_result", "title": "T", "source": "S", "content": [text("b")]},
    ]
    (found,) = of(user({"type": "tool_result", "tool_use_id": "1", "content": blocks})).messages
    assert (found.role, found.content, list(found.media)) == ("tool", "", [])
    assert [part.media.data or part.text for part in found.parts] == ["a", b"pixels", "\n\ng", "\n\nT\nS\nb"]


def test_text_and_images_keep_their_order():
    image = {"type": "image", "source": PIXELS}
    (found,) = of(user(image, text("a"), image, text("b"))).messages
    assert [part.WhichOneof("kind") for part in found.parts] == ["media", "text", "media", "text"]
    (found,) = of(user(image, image)).messages
    assert (len(found.media), list(found.parts)) == (2, [])


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "video"}, 'content block type "video" is not supported'),
        ({"type": "image"}, "invalid image source"),
        (
            {"type": "image", "source": {"type": "url", "url": "http://a"}},
            "invalid image source type: url. Only base64 images are supported.",
        ),
        (
            {"type": "image", "source": {"type": "base64", "data": "?"}},
            "invalid base64 image data: illegal base64 data at input byte 0",
        ),
        ({"type": "tool_use", "name": "f"}, "tool_use block missing required 'id' field"),
        ({"type": "tool_use", "id": "1"}, "tool_use block missing required 'name' field"),
        ({"type": "tool_result", "content": [{"type": "image"}]}, "invalid tool_result image source"),
        ({"type": "tool_result", "content": [{"type": "audio"}]}, 'content block type "audio" is not supported'),
    ],
)
def test_blocks_that_are_refused(block, said):
    assert refusal(user(block)) == said


def test_encrypted_thinking_is_left_out():
    assert list(of({"role": "assistant", "content": [{"type": "redacted_thinking"}]}).messages) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "web_search_result", "title": "T", "url": "http://a"}], "- T: http://a\n"),
        ({"type": "web_search_tool_result_error", "error_code": "x"}, "web_search_tool_result_error: x"),
        ([{"type": "web_search_tool_result_error"}], "web_search_tool_result_error"),
        ("plain", "plain"),
    ],
)
def test_results_of_earlier_searches(content, said):
    (found,) = of(user({"type": "web_search_tool_result", "tool_use_id": "1", "content": content})).messages
    assert (found.role, found.content) == ("tool", said)


def test_the_builtin_search_replaces_a_tool_of_its_name():
    tools = [
        {"type": "web_search_20250305", "name": "web_search"},
        {"name": "web_search", "input_schema": {"type": "object"}},
        {"name": "f", "description": "d", "input_schema": {"type": "object"}},
    ]
    found = of(tools=tools).tools
    assert [each.name for each in found] == ["web_search", "f"]
    assert json.loads(found[0].parameters_json)["required"] == ["query"]
    assert (found[1].description, found[1].parameters_json) == ("d", '{"type": "object"}')
    assert has_web_search(decoded(anthropic.MESSAGES, {"tools": tools})[1])
    assert not has_web_search(decoded(anthropic.MESSAGES, {"tools": tools[1:]})[1])


def test_a_schema_of_the_wrong_type_is_named():
    said = refusal(tools=[{"name": "f", "input_schema": {"required": 3}}])
    assert said.startswith('invalid input_schema for tool "f": json: cannot unmarshal number')
