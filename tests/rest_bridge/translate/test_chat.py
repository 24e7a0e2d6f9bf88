import json
import re

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import chat_pb2, message_pb2, usage_pb2
from puna_rest.bodies import native
from puna_rest.translate import chat

CALL = message_pb2.ToolCall(id="call_1", index=1, name="f", arguments_json='{"b": 1.0}')
FINISH = usage_pb2.Finish(
    reason=usage_pb2.FINISH_REASON_STOP,
    usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2),
)


def timeless(text):
    """Return the objects of an answer without the time that they were made at."""
    assert re.search(r'"created_at":"\d{4}-\d\d-\d\dT[0-9:.]+Z"', text)
    found = [json.loads(line) for line in text.splitlines()]
    return [{name: value for name, value in each.items() if name != "created_at"} for each in found]


def test_a_request_keeps_messages_tools_and_their_order():
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "hi", "images": ["aGk="]},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "ok", "tool_name": "f", "tool_call_id": "1"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
        ],
        "_debug_render_only": True,
    }
    request = chat.request(*decoded(native.CHAT, body), 0)
    assert (request.model, request.render_only) == ("m", True)
    user, assistant, tool = request.messages
    assert (user.role, user.content, user.media[0].data) == ("user", "hi", b"hi")
    assert (assistant.tool_calls[0].id, assistant.tool_calls[0].arguments_json) == ("1", '{"a": 1}')
    assert (tool.tool_name, tool.tool_call_id) == ("f", "1")
    assert (request.tools[0].name, request.tools[0].parameters_json) == ("f", '{"type": "object"}')


def test_each_delta_is_a_line_and_the_end_has_the_metrics():
    message = chat_pb2.StreamChatResponse(
        deltas=[
            chat_pb2.ChatDelta(content="<é>"),
            chat_pb2.ChatDelta(thinking="t", tool_calls=[CALL]),
            chat_pb2.ChatDelta(content="!"),
        ],
        done=chat_pb2.ChatDone(completes_delta=True, finish=FINISH),
    )
    text = chat.Answer("m").lines(message)
    assert '"content":"\\u003cé\\u003e"' in text
    assert timeless(text) == [
        {"model": "m", "message": {"role": "assistant", "content": "<é>"}, "done": False},
        {
            "model": "m",
            "message": {
                "role": "assistant",
                "content": "",
                "thinking": "t",
                "tool_calls": [{"id": "call_1", "function": {"index": 1, "name": "f", "arguments": {"b": 1}}}],
            },
            "done": False,
        },
        {
            "model": "m",
            "message": {"role": "assistant", "content": "!"},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 3,
            "eval_count": 2,
        },
    ]


def test_progress_alone_writes_no_line():
    assert chat.Answer("m").lines(chat_pb2.StreamChatResponse()) == ""


@pytest.mark.parametrize(
    ("reason", "single"),
    [("LOADED", True), ("UNLOADED", True), ("STOP", False), ("LENGTH", False)],
)
def test_loading_and_unloading_are_never_streamed(reason, single):
    finish = usage_pb2.Finish(reason=usage_pb2.FinishReason.Value(f"FINISH_REASON_{reason}"))
    message = chat_pb2.StreamChatResponse(done=chat_pb2.ChatDone(finish=finish))
    assert bool(chat.Answer("m").single(message)) is single
    assert chat.Answer("m").single(chat_pb2.StreamChatResponse(deltas=[chat_pb2.ChatDelta(content="a")])) == ""


def test_a_rendered_prompt_is_not_done_and_has_no_role():
    answer = chat_pb2.ChatResponse(rendered=usage_pb2.RenderedPrompt(text="<p>", image_count=2))
    (found,) = timeless(chat.Answer("m").full_answer(answer))
    assert found == {
        "model": "m",
        "message": {"role": "", "content": ""},
        "done": False,
        "_debug_info": {"rendered_template": "<p>", "image_count": 2},
    }


def test_log_probabilities_come_after_the_reason_and_before_the_metrics():
    answer = chat_pb2.ChatResponse(
        message=message_pb2.ChatMessage(content="a"),
        logprobs=[usage_pb2.TokenLogprob(text="a", raw=b"a", logprob=-0.5)],
        finish=FINISH,
    )
    text = chat.Answer("m").full_answer(answer)
    (found,) = timeless(text)
    assert found["logprobs"][0] | {"bytes": None} == {"token": "a", "logprob": -0.5, "bytes": None}
    assert text.index('"done_reason"') < text.index('"logprobs"') < text.index('"prompt_eval_count"')
