r"""Halves of characters, "\ud800" in JSON: in every string of every body they are read as U+FFFD, as Go reads them.

Each string and each name of a member in turn ends with the half in one request, and with U+FFFD in another. Both must
be answered alike, and by no internal error.
"""

import copy
import json
import re
import socket
import urllib.error
import urllib.request

import grpc
import pytest

from puna_client.v1 import chat_pb2, chat_pb2_grpc, generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc

HALF = "\ud800"
WHOLE = "\ufffd"
OPTIONS = {"num_predict": 2, "seed": 1, "temperature": 0, "stop": ["zzz"], "unknown": "x"}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "string", "enum": ["a"], "description": "d"}},
    "required": ["n"],
}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "1", "function": {"name": "f", "arguments": {"n": "a", "m": {"k": ["v"]}}}}
OPENAI_CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"n":"a"}'}}
SAID = {"role": "user", "content": "hi", "name": "n"}
BODIES = {
    "/api/generate": {
        "model": "llamita",
        "prompt": "hi",
        "system": "s",
        "template": "{{ .System }}{{ .Prompt }}",
        "options": OPTIONS,
        "format": SCHEMA,
        "keep_alive": "5m",
        "stream": False,
    },
    "/api/chat": {
        "model": "llamita",
        "messages": [
            SAID,
            {"role": "assistant", "content": "c", "thinking": "t", "tool_calls": [CALL]},
            {"role": "tool", "content": "r", "tool_name": "f", "tool_call_id": "1"},
        ],
        "tools": [TOOL],
        "options": OPTIONS,
        "stream": False,
    },
    "/api/embed": {"model": "embedder", "input": ["a", "b"], "options": OPTIONS, "keep_alive": "5m"},
    "/api/embeddings": {"model": "embedder", "prompt": "a", "options": OPTIONS},
    "/api/show": {"model": "llamita", "system": "s", "options": {"stop": ["a"]}},
    "/api/create": {
        "model": "made",
        "from": "scripted",
        "system": "s",
        "template": "{{ .Prompt }}",
        "license": ["l"],
        "parameters": {"stop": ["a"]},
        "messages": [{"role": "user", "content": "hi", "tool_calls": [CALL]}],
        "renderer": "",
        "info": {"k": "v"},
        "stream": False,
    },
    "/api/copy": {"source": "scripted", "destination": "copied"},
    "/api/delete": {"model": "nothing"},
    "/v1/chat/completions": {
        "model": "llamita",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "c", "reasoning": "r", "tool_calls": [OPENAI_CALL]},
            {"role": "tool", "content": "r", "tool_call_id": "1"},
        ],
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "stop": ["zzz"],
        "max_tokens": 2,
        "temperature": 0,
    },
    "/v1/completions": {"model": "llamita", "prompt": "hi", "stop": ["zzz"], "max_tokens": 2, "temperature": 0},
    "/v1/embeddings": {"model": "embedder", "input": ["a"], "encoding_format": "float"},
    "/v1/messages": {
        "model": "llamita",
        "max_tokens": 2,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"n": "a"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "r"}]},
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "f"},
        "stop_sequences": ["zzz"],
        "temperature": 0,
    },
    "/v1/responses": {
        "model": "llamita",
        "instructions": "s",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "r"},
        ],
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": SCHEMA}],
        "tool_choice": {"type": "function", "name": "f"},
        "max_output_tokens": 2,
        "temperature": 0,
    },
}
DRAWN = {("temperature", None), ("seed", None), ("max_tokens", None), ("max_output_tokens", None), ("options", None)}
VOLATILE = re.compile(
    rb'"(created_at|created|id|total_duration|load_duration|prompt_eval_duration|eval_duration|completed_at|modified_at'
    rb'|call_id|request_id|prompt_eval_count|cached_tokens)":("[^"]*"|\d+),?'
)


def spots(value, path=()):
    """Yield the path of every string and of every name; a name's ends with None."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key, None)
            yield from spots(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from spots(item, (*path, index))


def marked(body, path, mark):
    """Return a body with a mark at the end of one string or name."""
    body = copy.deepcopy(body)
    at, (*way, last) = body, path[:-1] if path[-1] is None else path
    for key in way:
        at = at[key]
    if path[-1] is not None:
        at[last] += mark
        return body
    items = list(at.items())
    at.clear()
    at.update((key + mark if key == last else key, value) for key, value in items)
    return body


def ask(server, path, body):
    method = "DELETE" if path == "/api/delete" else "POST"
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, VOLATILE.sub(b"", answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, VOLATILE.sub(b"", error.read())


@pytest.mark.parametrize("path", BODIES)
def test_a_half_is_read_as_a_whole_anywhere(server, path):
    for spot in spots(BODIES[path]):
        half, whole = (ask(server, path, marked(BODIES[path], spot, mark)) for mark in (HALF, WHOLE))
        # The number of tokens may be drawn where the name of what bounds or fixes it is the spot.
        free = spot[-2:] in DRAWN
        assert half[0] == whole[0] if free else half == whole, spot
        assert b"internal error" not in half[1], spot


@pytest.mark.parametrize("target", ["/v1/models/%s", "/api/blobs/%s", "/%s", "/api/tags?%s"])
@pytest.mark.parametrize("half", [b"\xff", b"%FF", b"\xed\xa0\x80", b"%ED%A0%80"])
def test_a_path_may_hold_any_bytes(server, target, half):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        line = b"HEAD " if "blobs" in target else b"GET "
        line += target.encode().replace(b"%s", half) + b" HTTP/1.1\r\n"
        connection.sendall(line + b"Host: localhost\r\nOrigin: http://\xff\r\nConnection: close\r\n\r\n")
        status = int(connection.makefile("rb").readline().split()[1])
    assert status < 500


def test_a_half_in_the_json_of_a_message(server):
    tools = [
        {"type": "function", "name": "f", "parameters_json": json.dumps({"type": "object", "properties": {HALF: {}}})}
    ]
    said = [{"role": "user", "content": "hi"}]
    said.append({"role": "assistant", "tool_calls": [{"name": "f", "arguments_json": json.dumps({"n": HALF})}]})
    options = {"options_json": json.dumps({"num_predict": 2, "stop": [HALF]})}
    with grpc.insecure_channel(server.grpc) as channel:
        chats, generates = chat_pb2_grpc.ChatServiceStub(channel), generate_pb2_grpc.GenerateServiceStub(channel)
        models = models_pb2_grpc.ModelsServiceStub(channel)
        chats.Chat(chat_pb2.ChatRequest(model="llamita", messages=said, tools=tools, options=options), timeout=60)
        forced = options | {"constraint": {"json_schema": json.dumps({"enum": [HALF]})}}
        answer = generates.Generate(
            generate_pb2.GenerateRequest(model="llamita", text="hi", options=forced | {"options_json": ""}), timeout=60
        )
        assert json.loads(answer.text) == WHOLE
        models.GetModel(
            models_pb2.GetModelRequest(name="llamita", options_json=json.dumps({"stop": [HALF]})), timeout=60
        )
        request = models_pb2.CreateModelRequest(
            name="made",
            from_model="scripted",
            parameters_json=json.dumps({"stop": [HALF]}),
            info_json=json.dumps({"k": HALF}),
        )
        assert [*models.CreateModel(request, timeout=60)][-1].model.name == "made:latest"
    assert WHOLE in server.json("/api/show", {"model": "made"})["parameters"]
