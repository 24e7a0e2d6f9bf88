import json

import pytest

from puna_client.v1 import batch_pb2, chat_pb2, embed_pb2, generate_pb2, message_pb2, usage_pb2
from puna_rest.errors import RestError
from puna_rest.translate.openai import batch_lines

ID = "batch_" + "0123456789abcdef" * 2
FINISH = usage_pb2.Finish(reason=usage_pb2.FINISH_REASON_STOP, usage=usage_pb2.Usage(prompt_tokens=3, output_tokens=2))
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def item(url, body, **changed):
    line = {"custom_id": "a", "method": "POST", "url": url, "body": body} | changed
    return batch_lines.item(json.dumps(line).encode(), url, 1_000, lambda items: items)


def answered(asked, **result):
    made = batch_pb2.StreamBatchResultsResponse(
        custom_id=asked.custom_id, number=5, client_data=asked.client_data, complete_time={"seconds": 9}, **result
    )
    line = batch_lines.line(ID, made)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    return json.loads(line)


def test_a_chat_makes_its_way():
    asked = item("/v1/chat/completions", CHAT | {"stream": True, "temperature": 0})
    assert (asked.custom_id, asked.chat.model, asked.chat.messages[0].content) == ("a", "m", "hi")
    message = message_pb2.ChatMessage(role="assistant", content="a\nb")
    found = answered(asked, chat=chat_pb2.ChatResponse(message=message, finish=FINISH))
    assert (found["custom_id"], found["error"], found["response"]["status_code"]) == ("a", None, 200)
    body = found["response"]["body"]
    assert (body["object"], body["model"], body["created"]) == ("chat.completion", "m", 9)
    assert body["choices"][0]["message"]["content"] == "a\nb"
    assert body["usage"]["total_tokens"] == 5


def test_a_line_is_the_same_each_time_it_is_read():
    asked = item("/v1/chat/completions", CHAT)
    message = message_pb2.ChatMessage(role="assistant", content="x")
    lines = [answered(asked, chat=chat_pb2.ChatResponse(message=message, finish=FINISH)) for _ in range(2)]
    assert lines[0] == lines[1]
    assert lines[0]["id"].startswith("batch_req_0123456789abcdef")


def test_a_completion_makes_its_way():
    asked = item("/v1/completions", {"model": "m", "prompt": "hi"})
    assert asked.generate.text == "hi"
    found = answered(asked, generate=generate_pb2.GenerateResponse(text="yes", finish=FINISH))
    assert found["response"]["body"]["choices"][0]["text"] == "yes"


@pytest.mark.parametrize(("encoding", "kind"), [("float", list), ("base64", str)])
def test_vectors_have_the_encoding_of_their_request(encoding, kind):
    asked = item("/v1/embeddings", {"model": "m", "input": ["a"], "encoding_format": encoding})
    assert list(asked.embed.inputs) == ["a"]
    vectors = [embed_pb2.Vector(packed=bytes(8))]
    found = answered(asked, embed=embed_pb2.EmbedResponse(vectors=vectors, usage=FINISH.usage))
    (data,) = found["response"]["body"]["data"]
    assert isinstance(data["embedding"], kind)
    assert found["response"]["body"]["model"] == "m"


def test_a_response_repeats_what_its_request_had():
    asked = item("/v1/responses", {"model": "m", "input": "hi", "instructions": "Be brief.", "metadata": {"k": "v"}})
    assert [each.role for each in asked.chat.messages] == ["system", "user"]
    message = message_pb2.ChatMessage(role="assistant", content="yes")
    body = answered(asked, chat=chat_pb2.ChatResponse(message=message, finish=FINISH))["response"]["body"]
    assert (body["object"], body["model"], body["instructions"]) == ("response", "m", "Be brief.")
    assert body["output"][0]["content"][0]["text"] == "yes"


def test_a_search_fails_as_on_the_route():
    asked = item("/v1/responses", {"model": "m", "input": "hi", "tools": [{"type": "web_search"}]})
    call = message_pb2.ToolCall(id="1", name="web_search", arguments_json='{"query":"x"}')
    message = message_pb2.ChatMessage(role="assistant", tool_calls=[call])
    found = answered(asked, chat=chat_pb2.ChatResponse(message=message, finish=FINISH))
    assert found["response"]["status_code"] == 403
    assert "web search is unavailable" in found["response"]["body"]["error"]["message"]


def test_references_are_resolved_when_the_batch_is_made():
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses"}
    line["body"] = {"model": "m", "input": [{"type": "item_reference", "id": "msg_1"}]}

    def resolve(items):
        raise RestError(404, f"no item with id {items[0]['id']!r} is kept")

    with pytest.raises(RestError, match="no item with id 'msg_1'"):
        batch_lines.item(json.dumps(line).encode(), "/v1/responses", 1_000, resolve)


def test_an_error_is_that_of_the_route():
    error = {"code": 5, "reason": "MODEL_NOT_FOUND", "message": "model 'm' not found"}
    found = answered(batch_pb2.BatchItem(custom_id="a"), error=error)
    assert (found["error"], found["response"]["status_code"]) == (None, 404)
    assert found["response"]["body"]["error"]["message"] == "model 'm' not found"


def test_an_unknown_reason_has_the_status_of_its_code():
    found = answered(batch_pb2.BatchItem(custom_id="a"), error={"code": 8, "reason": "NEW", "message": "x"})
    assert found["response"]["status_code"] == 503


def test_a_request_that_did_not_run_has_no_response():
    error = {"code": 4, "reason": "BATCH_EXPIRED", "message": "too late"}
    found = answered(batch_pb2.BatchItem(custom_id="a"), error=error)
    assert found["response"] is None
    assert found["error"] == {"code": "batch_expired", "message": "too late"}


@pytest.mark.parametrize(
    ("url", "body", "status", "said"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": []}, 400, "messages"),
        ("/v1/embeddings", {"model": "m"}, 400, "invalid input"),
        ("/v1/embeddings", {"model": "m", "input": "a", "encoding_format": "hex"}, 400, "encoding_format"),
        ("/v1/chat/completions", {**CHAT, "model": "m:cloud"}, 403, "cloud"),
        ("/v1/completions", {"model": "m", "prompt": "p", "stop": [1] * 2_000}, 400, "values"),
    ],
)
def test_what_the_route_refuses_is_refused(url, body, status, said):
    with pytest.raises(RestError, match=said) as raised:
        item(url, body)
    assert raised.value.status == status
