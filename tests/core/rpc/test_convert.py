import json
import math
import re

import pytest

from puna.errors import InvalidRequestError
from puna.messages import Think, ToolChoice
from puna.rpc import convert
from puna.serving.requests import OutputConstraint
from puna_client.v1 import chat_pb2, generate_pb2, message_pb2, models_pb2, options_pb2


def options(**fields):
    return convert.request_options(options_pb2.RequestOptions(**fields))


def test_typed_options_win_over_json():
    wire = options_pb2.RequestOptions(
        options_json='{"temperature": 1, "num_ctx": 5, "top_k": 3}',
        sampling=options_pb2.SamplingOptions(temperature=0, seed=0, max_output_tokens=9),
        runtime=options_pb2.RuntimeOptions(context_length=64, use_mmap=False),
        keep_tokens=0,
    )
    assert convert.request_options(wire).values == {
        "temperature": 0,
        "num_ctx": 64,
        "top_k": 3,
        "seed": 0,
        "num_predict": 9,
        "use_mmap": False,
        "num_keep": 0,
    }


@pytest.mark.parametrize(
    ("sampling", "stop"),
    [({}, ["a"]), ({"stop": ["b"]}, ["b"]), ({"replace_stop": True}, [])],
)
def test_stop_strings(sampling, stop):
    wire = options(options_json='{"stop": ["a"]}', sampling=options_pb2.SamplingOptions(**sampling))
    assert wire.values["stop"] == stop


@pytest.mark.parametrize("text", ["[]", "1", "{", '"x"'])
def test_options_that_are_no_object_are_refused(text):
    with pytest.raises(InvalidRequestError, match="options_json"):
        options(options_json=text)


@pytest.mark.parametrize("text", ["", "null", "{}"])
def test_no_options(text):
    assert options(options_json=text).values == {}


@pytest.mark.parametrize(
    ("wire", "seconds"),
    [
        ({"forever": True}, math.inf),
        ({"duration": {"seconds": 5, "nanos": 500_000_000}}, 5.5),
        ({"duration": {}}, 0.0),
        ({"duration": {"seconds": -1}}, math.inf),
        ({}, None),
    ],
)
def test_keep_alive(wire, seconds):
    assert options(keep_alive=options_pb2.KeepAlive(**wire)).keep_alive == seconds


def test_keep_alive_not_given():
    assert options().keep_alive is None


@pytest.mark.parametrize(
    ("level", "think"),
    [
        (options_pb2.THINKING_LEVEL_UNSPECIFIED, None),
        (options_pb2.THINKING_LEVEL_OFF, Think(on=False)),
        (options_pb2.THINKING_LEVEL_ON, Think(on=True)),
        (options_pb2.THINKING_LEVEL_MAX, Think(on=True, level="max")),
    ],
)
def test_thinking(level, think):
    assert options(thinking=level).think == think


@pytest.mark.parametrize(
    ("wire", "output"),
    [
        ({}, None),
        ({"json_object": True}, OutputConstraint("json_object")),
        ({"json_object": False}, None),
        ({"json_schema": ""}, None),
        ({"json_schema": "null"}, None),
        ({"json_schema": '"xml"'}, OutputConstraint("json_schema", '"xml"')),
        ({"regex": "a+"}, OutputConstraint("regex", "a+")),
        ({"choices": {"values": ['a"b', "c"]}}, OutputConstraint("lark", 'start: "a\\"b" | "c"')),
    ],
)
def test_constraints(wire, output):
    assert options(constraint=options_pb2.OutputConstraint(**wire)).constraint == output


def test_start_time_is_kept_to_the_nanosecond():
    assert options(start_time={"seconds": 7, "nanos": 8}).start_ns == 7_000_000_008
    assert options().start_ns > 1e18


def test_token_ids_need_raw():
    wire = generate_pb2.GenerateRequest(token_ids={"ids": [1, 2]}, raw=True)
    assert convert.generate_request(wire).prompt == (1, 2)
    wire.raw = False
    with pytest.raises(InvalidRequestError, match="raw"):
        convert.generate_request(wire)


def test_an_empty_context_is_not_the_same_as_none():
    assert convert.generate_request(generate_pb2.GenerateRequest()).context is None
    assert convert.generate_request(generate_pb2.GenerateRequest(context={})).context == ()


def test_messages():
    wire = message_pb2.ChatMessage(
        role="USER",
        content="c",
        thinking="t",
        media=[options_pb2.Media(data=b"x")],
        tool_calls=[message_pb2.ToolCall(id="1", index=2, name="f")],
        tool_name="n",
        tool_call_id="i",
    )
    (message,) = convert.messages([wire])
    assert message.role == "user"
    assert message.media == (b"x",)
    assert message.tool_calls[0].arguments == "{}"
    assert (message.tool_name, message.tool_call_id, message.thinking) == ("n", "i", "t")


@pytest.mark.parametrize(
    ("wire", "choice"),
    [
        ({}, ToolChoice("auto")),
        ({"mode": message_pb2.ToolChoice.MODE_NONE}, ToolChoice("none")),
        ({"mode": message_pb2.ToolChoice.MODE_REQUIRED}, ToolChoice("required")),
        ({"tool_name": "f"}, ToolChoice("required", "f")),
    ],
)
def test_tool_choice(wire, choice):
    request = convert.chat_request(chat_pb2.ChatRequest(tool_choice=message_pb2.ToolChoice(**wire)))
    assert request.tool_choice == choice


def test_create_tells_no_files_from_an_empty_list():
    assert convert.create_request(models_pb2.CreateModelRequest(name="m")).files is None
    assert convert.create_request(models_pb2.CreateModelRequest(name="m", has_files=True)).files == {}


def test_create():
    wire = models_pb2.CreateModelRequest(
        name="m", parameters_json=json.dumps({"stop": ["x"]}), adapters=[{"name": "a", "digest": "d"}], backend="b"
    )
    wire.from_model = "base"
    request = convert.create_request(wire)
    assert (request.base, request.adapters, request.backend) == ("base", {"a": "d"}, "b")
    assert request.parameters == {"stop": ["x"]}


TEXT, IMAGE = message_pb2.ContentPart(text="ab"), message_pb2.ContentPart(media=options_pb2.Media(data=b"x"))


def test_parts_keep_the_places_of_media():
    wire = message_pb2.ChatMessage(role="user", parts=[IMAGE, TEXT, TEXT, IMAGE])
    (message,) = convert.messages([wire])
    assert (message.content, message.media, message.media_at) == ("abab", (b"x", b"x"), (0, 4))


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        ({"content": "c", "parts": [TEXT]}, "messages[1].parts"),
        ({"media": [IMAGE.media], "parts": [TEXT]}, "messages[1].parts"),
        ({"parts": [TEXT, message_pb2.ContentPart()]}, "messages[1].parts[1]"),
    ],
)
def test_parts_beside_content_and_empty_parts_are_refused(wire, field):
    with pytest.raises(InvalidRequestError, match=re.escape(field)) as raised:
        convert.messages([message_pb2.ChatMessage(content="a"), message_pb2.ChatMessage(**wire)])
    assert raised.value.info["field"] == field


def test_a_model_keeps_no_order_of_media():
    for parts, refused in (([TEXT], False), ([TEXT, IMAGE], True)):
        wire = models_pb2.CreateModelRequest(name="m", messages=[message_pb2.ChatMessage(role="user", parts=parts)])
        if refused:
            with pytest.raises(InvalidRequestError, match="a model keeps no order of media"):
                convert.create_request(wire)
        else:
            assert convert.create_request(wire).messages[0].content == "ab"
