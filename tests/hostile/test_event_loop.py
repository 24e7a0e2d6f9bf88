"""Large and odd bodies on every route and RPC: others are answered meanwhile, and no turn of the event loop is long.

The servers of these tests fail when their watchdog has logged anything (`serving`), so each case checks both.
"""

import json
import socket
import urllib.error
import urllib.request

import grpc
import pytest
from tests.hostile.bounds import unharmed

from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    embed_pb2,
    embed_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    options_pb2,
)

MANY = 200_000
WITHIN = 1.5


def post(server, path, body, timeout=60):
    """Send a body as it is; return status and answer."""
    request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def members(count, value="1"):
    return "{" + ",".join(f'"k{number}":{value}' for number in range(count)) + "}"


def elements(count, value):
    return "[" + ",".join([value] * count) + "]"


def texts(count):
    return elements(count, '"a"')


def generate(more):
    return b'{"model":"scripted","prompt":"hi","stream":false,%s}' % more.encode()


def chat(messages, more=""):
    return f'{{"model":"scripted","stream":false,"max_tokens":4,"messages":{messages}{more}}}'.encode()


SAID = '{"role":"user","content":"hi"}'
TOOL = '{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}'
BLOCK = '{"type":"text","text":"a"}'
THOUGHT = '{"type":"thinking"}'
CALL = '{"role":"assistant","tool_calls":[{"id":"%d","function":{"name":"f","arguments":"{}"}}]}'
RESULT = '{"role":"tool","content":"x","tool_call_id":"none"}'
LONG = '"' + "a\\n" * 3_000_000 + '"'
HASH = '"sha256:0"'
GENERATE = {
    "unknown options": (generate(f'"options":{members(MANY)}'), 400, "options"),
    "fewer unknown options": (generate(f'"options":{members(20_000)}'), 200, "done"),
    "stop strings": (generate(f'"options":{{"stop":{texts(5_000)}}}'), 400, "stop"),
    "unknown keys": (generate(f'"x":{members(3 * MANY)}'), 400, '"x\\": a request'),
    "keys below the limit": (generate(f'"x":{members(MANY)}'), 200, "done"),
    "repeated objects": (generate(",".join(['"options":{"abcdef":1}'] * 110_000)), 400, "options"),
    "context": (generate(f'"context":{elements(3_000_000, "1")}'), 400, "context"),
    "context that is taken": (generate(f'"context":{elements(50_000, "33")}'), None, ""),
    "a long format": (generate(f'"format":{LONG}'), 400, "format"),
    "a long think": (generate(f'"think":{LONG}'), 400, "invalid think value"),
    "bad base64": (generate(f'"images":["{"QUJD" * 1_000_000}*"]'), 400, "base64"),
    "an image of numbers": (generate(f'"images":[{elements(MANY, "7")}]'), None, ""),
    "depth": (b'{"model":"scripted","x":%s' % (b"[" * 1_000_000), 400, "max depth"),
    "a name of escapes": (f'{{"model":{LONG}}}'.encode(), 400, "invalid model name"),
    "a bad name": (b'{"model":"%s\\x"}' % (b"\\u00e9" * 1_000_000), 400, "string escape"),
    "a name that is no UTF-8": (b'{"model":"%s"}' % (b"\xff" * 4_000_000), 400, "invalid model name"),
    "a prompt that is shown": (generate(f'"raw":true,"_debug_render_only":true,"prompt":{LONG}'), 200, "rendered"),
}
CHAT = {
    "messages": (chat(elements(100_000, SAID)), 400, "messages"),
    "calls": (chat(f'[{{"role":"assistant","tool_calls":{elements(50_000, "{}")}}}]'), 400, "tool_calls"),
    "tools": (chat(f"[{SAID}]", f',"tools":{elements(40_000, TOOL)}'), 400, "tools"),
}
EMBED = {"inputs": (f'{{"model":"embedder","input":{texts(MANY)}}}'.encode(), 400, "input")}
CREATE = {
    "parameters": (
        f'{{"model":"new","from":"scripted","stream":false,"parameters":{members(MANY)}}}'.encode(),
        400,
        "parameters",
    ),
    "files": (f'{{"model":"new","stream":false,"files":{members(MANY, HASH)}}}'.encode(), 400, ""),
}
OPENAI = {
    "messages": (chat(elements(100_000, SAID)), 400, "messages"),
    "parts": (chat(f'[{{"role":"user","content":{elements(100_000, BLOCK)}}}]'), 400, "messages"),
    "tool results": (
        chat(f"[{','.join([CALL % number for number in range(11_000)])},{','.join([RESULT] * 11_000)}]"),
        400,
        "messages",
    ),
    "tool_choice": (chat(f"[{SAID}]", f',"tool_choice":{members(MANY)}'), 200, "choices"),
    "a number": (chat(f"[{SAID}]", f',"max_completion_tokens":{"1" * 1_000_000}'), 200, "choices"),
}
ANTHROPIC = {
    "blocks": (chat(f'[{{"role":"user","content":{elements(120_000, BLOCK)}}}]'), 400, "exceed_context_size"),
    "thinking": (
        chat(
            f'[{{"role":"assistant","content":[{{"type":"thinking","thinking":"{"t" * 1_000_000}"}},'
            f"{','.join([THOUGHT] * 50_000)}]}}]"
        ),
        200,
        "content",
    ),
    "system": (chat(f"[{SAID}]", f',"system":{elements(100_000, BLOCK)}'), 400, "exceed_context_size"),
}
RESPONSES = {
    "input": (f'{{"model":"scripted","input":{elements(60_000, SAID)}}}'.encode(), 400, "messages"),
    "tools": (
        f'{{"model":"scripted","input":"hi","tools":[{{"type":"function","name":"f","parameters":{members(MANY)}}}]}}'.encode(),
        400,
        "does not support tools",
    ),
}
ATTACKS = {
    "/api/generate": GENERATE,
    "/api/chat": CHAT,
    "/api/embed": EMBED,
    "/api/create": CREATE,
    "/v1/chat/completions": OPENAI,
    "/v1/embeddings": EMBED,
    "/v1/messages": ANTHROPIC,
    "/v1/responses": RESPONSES,
}


@pytest.fixture(scope="module", autouse=True)
def warm(server):
    """Load the models, and send a first large body: Python's allocator keeps some of its memory, once."""
    post(server, "/api/generate", generate('"options":{}'))
    post(server, "/api/embed", b'{"model":"embedder","input":["a"]}')
    post(server, "/v1/messages", ANTHROPIC["blocks"][0])


@pytest.mark.parametrize("path", ATTACKS)
def test_large_bodies_delay_nobody(server, path):
    with unharmed(server, within=WITHIN):
        for name, (body, status, part) in ATTACKS[path].items():
            got, answer = post(server, path, body)
            assert status in (None, got), (name, got, answer[:300])
            assert part.encode() in answer, (name, answer[:300])


def test_who_hangs_up_is_not_worked_for(server):
    body = generate(f'"x":{members(2 * MANY)}')
    host, port = server.url.removeprefix("http://").split(":")
    with unharmed(server, within=WITHIN):
        for _ in range(20):
            with socket.create_connection((host, int(port))) as connection:
                head = f"POST /api/generate HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)
        assert post(server, "/api/generate", generate(f'"x":{members(50_000)}'), timeout=20)[0] == 200


def _calls(channel):
    generates, chats = generate_pb2_grpc.GenerateServiceStub(channel), chat_pb2_grpc.ChatServiceStub(channel)
    embeds = embed_pb2_grpc.EmbedServiceStub(channel)
    options = options_pb2.RequestOptions(options_json=members(MANY))
    yield "options", generates.Generate, generate_pb2.GenerateRequest(model="scripted", text="hi", options=options)
    biased = generate_pb2.GenerateRequest(model="scripted", text="hi")
    biased.options.sampling.logit_bias.update(dict.fromkeys(range(3 * MANY), 1.0))
    yield "elements", generates.Generate, biased
    stops = generate_pb2.GenerateRequest(model="scripted", text="hi")
    stops.options.sampling.stop.extend(["x"] * 5_000)
    yield "stop", generates.Generate, stops
    context = generate_pb2.GenerateRequest(model="scripted", text="hi")
    context.context.ids.extend([1] * 3_000_000)
    yield "context", generates.Generate, context
    messages = chat_pb2.ChatRequest(model="scripted", messages=[{"role": "user"}] * MANY)
    yield "messages", chats.Chat, messages
    nested = chat_pb2.ChatRequest(model="scripted", messages=[{"role": "user", "tool_calls": [{}] * 3 * MANY}])
    yield "elements", chats.Chat, nested
    yield "tools", chats.Chat, chat_pb2.ChatRequest(model="scripted", tools=[{"name": "f"}] * 50_000)
    yield "input", embeds.Embed, embed_pb2.EmbedRequest(model="embedder", inputs=["a"] * MANY)


def test_a_large_message_delays_nobody(server):
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as channel:
        for name, call, request in _calls(channel):
            with unharmed(server, within=WITHIN), pytest.raises(grpc.RpcError) as raised:
                call(request, timeout=60)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, raised.value
            assert name in raised.value.details()


def test_a_bulk_of_vectors_delays_nobody(server):
    body = json.dumps({"model": "embedder", "input": ["a"] * 20_000}).encode()
    with unharmed(server, within=WITHIN):
        answer = json.loads(post(server, "/api/embed", body)[1])
    assert len(answer["embeddings"]) == 20_000
