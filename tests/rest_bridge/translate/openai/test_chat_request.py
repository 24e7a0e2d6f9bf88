import base64
import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import message_pb2, options_pb2
from puna_rest.bodies import openai
from puna_rest.errors import RestError
from puna_rest.translate.openai import chat_request

USER = {"role": "user", "content": "hi"}


def request(*messages, **fields):
    return chat_request.request(*decoded(openai.CHAT_COMPLETION, {"model": "m", "messages": messages} | fields), 0)


def refusal(*messages, **fields):
    with pytest.raises(RestError) as caught:
        request(*messages, **fields)
    assert caught.value.status == 400
    return str(caught.value)


def calling(arguments, call_id="1", name="f"):
    return {"role": "assistant", "tool_calls": [{"id": call_id, "function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"temperature": 1, "top_p": 1}),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}),
        ({"seed": 3}, {"seed": 3}),
        ({"max_tokens": 5}, {"num_predict": 5}),
        ({"max_completion_tokens": 7}, {"num_predict": 7}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
    ],
)
def test_options(fields, options):
    found = json.loads(request(USER, **fields).options.options_json)
    assert {name: found[name] for name in options} == options


@pytest.mark.parametrize(
    ("effort", "level"),
    [
        *[("", "UNSPECIFIED"), ("none", "OFF"), ("minimal", "LOW"), ("low", "LOW"), ("medium", "MEDIUM")],
        *[("high", "HIGH"), ("xhigh", "MAX"), ("ultra", "MAX"), ("max", "MAX")],
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_reasoning_effort(effort, level, nested):
    fields = {"reasoning": {"effort": effort}} if nested else {"reasoning_effort": effort}
    assert request(USER, **fields).options.thinking == options_pb2.ThinkingLevel.Value(f"THINKING_LEVEL_{level}")


def test_an_unknown_effort_is_refused():
    assert refusal(USER, reasoning_effort='a"').startswith('invalid reasoning value: "a\\"" (must be "minimal", ')


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("auto", message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_AUTO)),
        ("none", message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_NONE)),
        ("required", message_pb2.ToolChoice(mode=message_pb2.ToolChoice.MODE_REQUIRED)),
        ({"type": "function", "function": {"name": "f"}}, message_pb2.ToolChoice(tool_name="f")),
        ("sometimes", None),
        (3, None),
        (None, None),
    ],
)
def test_tool_choice(given, choice):
    found = request(USER, tool_choice=given)
    assert (found.tool_choice if found.HasField("tool_choice") else None) == choice


@pytest.mark.parametrize(
    ("given", "constraint"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": " JSON_object "}, options_pb2.OutputConstraint(json_object=True)),
        (
            {"type": "json_schema", "json_schema": {"schema": {"type": "string"}}},
            options_pb2.OutputConstraint(json_schema='{"type": "string"}'),
        ),
        ({"type": "json_schema"}, None),
    ],
)
def test_response_format(given, constraint):
    options = request(USER, response_format=given).options
    assert (options.constraint if options.HasField("constraint") else None) == constraint


def test_each_part_of_a_content_becomes_a_message():
    parts = [
        {"type": "text", "text": "a"},
        {"type": "refusal", "refusal": "no"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": "data:image/png;base64,aGk="},
        {"type": "input_audio", "input_audio": {"data": "aGk="}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk="}},
    ]
    found = request({"role": "USER", "content": parts}).messages
    assert [(each.role, each.content, [media.data for media in each.media]) for each in found] == [
        ("user", "a", []),
        ("user", "no", []),
        ("user", "", [b"hi"]),
        ("user", "", [b"hi"]),
        ("user", "", [b"hi"]),
        ("user", "hi", []),
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": 3}], "invalid message format"),
        (["bare"], "invalid message format"),
        ([{"type": "video"}], "invalid message format"),
        ([{"type": "input_audio", "input_audio": 3}], "invalid input_audio format"),
        ([{"type": "input_audio", "input_audio": {}}], "invalid input_audio format: missing data"),
        (
            [{"type": "input_audio", "input_audio": {"data": "?"}}],
            "invalid input_audio base64 data: illegal base64 data at input byte 0",
        ),
        ([{"type": "file", "file": {"file_id": "x"}}], "file inputs are not currently supported"),
        (3, "invalid message content type: float64"),
        (None, "invalid message content type: <nil>"),
        ({}, "invalid message content type: map[string]interface {}"),
    ],
)
def test_contents_that_are_refused(content, text):
    assert refusal({"role": "user", "content": content}) == text


@pytest.mark.parametrize("url", ["http://example.com/a.png", "data:image/gif;base64,aGk=", "data:image/png;base64,?"])
def test_images_that_are_not_inline_or_not_readable_are_refused(url):
    assert refusal({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})


@pytest.mark.parametrize("kind", ["jpeg", "jpg", "png", "webp"])
def test_images(kind):
    url = f"data:image/{kind};base64,{base64.b64encode(b'pixels').decode()}"
    (found,) = request({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}).messages
    assert found.media[0].data == b"pixels"


def test_a_result_without_a_name_takes_that_of_its_call():
    found = request(calling("{}", name="g"), {"role": "tool", "content": "x", "tool_call_id": "1"}).messages
    assert [(each.role, each.tool_name, each.tool_call_id) for each in found] == [
        ("assistant", "", ""),
        ("tool", "g", "1"),
    ]
    found = request(calling("{}"), {"role": "tool", "content": "x", "tool_call_id": "1", "name": "own"}).messages
    assert found[1].tool_name == "own"


@pytest.mark.parametrize("arguments", ["[1]", "3", "{", "text"])
def test_arguments_of_calls_must_be_an_object(arguments):
    assert refusal(calling(arguments)) == "invalid tool call arguments"


def test_arguments_of_calls_are_kept_as_they_are():
    assert request(calling('{"a": 1.0}')).messages[0].tool_calls[0].arguments_json == '{"a": 1.0}'


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({}, None),
        ({"reasoning": {"max_tokens": 9}}, 9),
        ({"reasoning": {"max_tokens": 0}}, 0),
        ({"reasoning": {"max_tokens": 2**40}}, 2**31 - 1),
        ({"thinking_token_budget": 4}, 4),
        ({"thinking_token_budget": -1, "reasoning": {"max_tokens": 9}}, 9),
        *(({"reasoning": {"max_tokens": value}}, None) for value in (-1, 1.5, "9", None, [], True)),
        *(({"thinking_token_budget": value}, None) for value in (-1, 1.5, "9", None, {}, "x" * 5000)),
    ],
)
def test_thinking_budgets_that_clients_send(fields, budget):
    options = request(USER, **fields).options
    assert (options.thinking_budget if options.HasField("thinking_budget") else None) == budget
    # Ollama ignores the fields, so a backend that cannot enforce them does too.
    assert options.thinking_if_possible is (budget is not None)


def test_an_effort_beside_a_budget_is_still_refused_by_a_model_that_cannot_think():
    options = request(USER, reasoning={"effort": "high", "max_tokens": 9}).options
    assert (options.thinking_budget, options.thinking_if_possible) == (9, False)


@pytest.mark.parametrize(("given", "n"), [(3, 3), (0, 0), (-2, -2), (2**70, None), (1.5, None), ("2", None)])
def test_the_number_of_answers(given, n):
    found = request(USER, n=given)
    assert (found.n if found.HasField("n") else None) == n
