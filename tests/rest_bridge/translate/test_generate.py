import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import generate_pb2, message_pb2, usage_pb2
from puna_rest.bodies import native
from puna_rest.translate import generate

FINISH = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_LENGTH, usage=usage_pb2.Usage(output_tokens=2))


def request(body):
    return generate.request(*decoded(native.GENERATE, body), 0)


def test_the_fields_of_a_prompt():
    found = request(
        {"model": "m", "prompt": "p", "suffix": "s", "system": "y", "template": "t", "raw": True, "images": ["aGk="]}
    )
    assert (found.model, found.text, found.suffix, found.system, found.template, found.raw) == (
        *("m", "p", "s", "y", "t"),
        True,
    )
    assert [each.data for each in found.media] == [b"hi"]


@pytest.mark.parametrize(
    ("given", "there", "ids"),
    [(None, False, []), ([], True, []), ([1, 2], True, [1, 2]), ([2**40, -(2**40)], True, [2**31 - 1, -(2**31 - 1)])],
)
def test_a_context_is_clamped_and_an_empty_one_is_not_none(given, there, ids):
    found = request({"context": given})
    assert found.HasField("context") is there
    assert list(found.context.ids) == ids


def test_lines():
    call = message_pb2.ToolCall(name="f", arguments_json="{}")
    message = generate_pb2.StreamGenerateResponse(
        deltas=[generate_pb2.GenerateDelta(text="a"), generate_pb2.GenerateDelta(thinking="t", tool_calls=[call])],
        done=generate_pb2.GenerateDone(finish=FINISH, context=usage_pb2.TokenIds(ids=[1, 2])),
    )
    first, second, last = map(json.loads, generate.Answer("m").lines(message).splitlines())
    assert (first["response"], first["done"], "thinking" in first) == ("a", False, False)
    assert (second["response"], second["thinking"]) == ("", "t")
    assert second["tool_calls"][0]["function"]["name"] == "f"
    assert (last["response"], last["done"], last["done_reason"], last["context"]) == ("", True, "length", [1, 2])
    assert last["eval_count"] == 2


def test_the_order_of_fields_is_ollamas():
    call = message_pb2.ToolCall(name="f", arguments_json="{}")
    answer = generate_pb2.GenerateResponse(
        text="a",
        thinking="t",
        tool_calls=[call],
        finish=FINISH,
        context=usage_pb2.TokenIds(ids=[1]),
        logprobs=[usage_pb2.TokenLogprob(text="a", logprob=-1)],
    )
    names = list(json.loads(generate.Answer("m").full_answer(answer)))
    assert names == [
        *("model", "created_at", "response", "thinking", "done", "done_reason", "context", "eval_count"),
        *("tool_calls", "logprobs"),
    ]


def test_a_rendered_prompt_is_a_whole_answer():
    done = generate_pb2.GenerateDone(rendered=usage_pb2.RenderedPrompt(text="p"))
    found = json.loads(generate.Answer("m").single(generate_pb2.StreamGenerateResponse(done=done)))
    assert (found["done"], found["_debug_info"]) == (False, {"rendered_template": "p"})
