"""Prompts far longer than any context: they cost a few copies of their text, and no tokens without number."""

import json

import grpc
import pytest
from tests.hostile.bounds import unharmed
from tests.hostile.wire import exchange, head, status

from puna_client.v1 import embed_pb2, embed_pb2_grpc, generate_pb2, generate_pb2_grpc, tokenize_pb2, tokenize_pb2_grpc

MB = 1 << 20
SIZE = 12 * MB
"""Bytes of a prompt: as many as a template may write, nearly."""


def post(server, route, before, after, filler="abcd ", size=SIZE):
    """Post a body with a very long text in it."""
    text = (filler * (size // len(filler))).encode()
    body = before.encode() + text + after.encode()
    request = head(f"POST {route} HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close")
    return exchange(server.url, request + body, timeout=60)


@pytest.mark.parametrize(
    ("route", "before", "after", "expected"),
    [
        ("/api/generate", '{"model":"scripted","stream":false,"prompt":"', '"}', 200),
        ("/api/generate", '{"model":"scripted","stream":false,"truncate":false,"prompt":"', '"}', 400),
        ("/api/chat", '{"model":"scripted","stream":false,"messages":[{"role":"user","content":"', '"}]}', 400),
        ("/api/embed", '{"model":"embedder","input":["a","', '"]}', 200),
        ("/api/embed", '{"model":"embedder","truncate":false,"input":"', '"}', 400),
        ("/v1/completions", '{"model":"scripted","prompt":"', '"}', 200),
    ],
)
def test_a_very_long_text(server, route, before, after, expected):
    post(server, route, before, after)  # the model is loaded, and what renders large prompts has its memory
    with unharmed(server, within=4.0, memory=300 * MB):
        answer = post(server, route, before, after)
    assert status(answer) == expected, answer[:500]
    assert len(answer) < 4 * MB


def test_a_text_without_a_space(server):
    with unharmed(server, within=4.0, memory=300 * MB):
        answer = post(server, "/api/generate", '{"model":"scripted","stream":false,"prompt":"', '"}', filler="a")
    assert status(answer) == 200
    assert json.loads(answer.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2].rpartition(b"}")[0] + b"}")["done"]


def test_the_same_over_grpc(server):
    text = "abcd " * (SIZE // 5)
    with (
        grpc.insecure_channel(server.grpc, options=[("grpc.max_send_message_length", -1)]) as channel,
        unharmed(server, within=4.0, memory=300 * MB),
    ):
        generated = generate_pb2_grpc.GenerateServiceStub(channel).Generate(
            generate_pb2.GenerateRequest(model="scripted", text=text, options={"truncate": True})
        )
        assert generated.finish.usage.truncated_tokens > MB
        with pytest.raises(grpc.RpcError) as caught:
            tokenize_pb2_grpc.TokenizeServiceStub(channel).Tokenize(
                tokenize_pb2.TokenizeRequest(model="scripted", text=text)
            )
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as caught:
            embed_pb2_grpc.EmbedServiceStub(channel).Embed(embed_pb2.EmbedRequest(model="embedder", inputs=[text]))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
