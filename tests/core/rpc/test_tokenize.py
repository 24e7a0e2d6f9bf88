import grpc
import pytest

from puna_client.v1 import chat_pb2, generate_pb2, message_pb2, tokenize_pb2


async def test_tokens_there_and_back(stubs):
    answer = await stubs.tokenize.Tokenize(tokenize_pb2.TokenizeRequest(model="plain", text="aé", with_pieces=True))
    assert list(answer.pieces) == [b"a", b"\xc3", b"\xa9"]
    back = await stubs.tokenize.Detokenize(
        tokenize_pb2.DetokenizeRequest(model="plain", token_ids=answer.token_ids[:2])
    )
    assert (back.text, back.raw) == ("a\ufffd", b"a\xc3")


async def test_pieces_are_sent_only_if_asked_for(stubs):
    answer = await stubs.tokenize.Tokenize(tokenize_pb2.TokenizeRequest(model="plain", text="abc"))
    assert (len(answer.token_ids), list(answer.pieces)) == (3, [])
    assert answer.context_length > 0


@pytest.mark.parametrize("method", ["Tokenize", "Detokenize"])
async def test_a_missing_model(stubs, method):
    request = getattr(tokenize_pb2, f"{method}Request")(model="absent")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(stubs.tokenize, method)(request)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def chat(**fields):
    return chat_pb2.ChatRequest(model="talker", messages=[message_pb2.ChatMessage(role="user", content="hi")], **fields)


async def test_count_of_a_conversation(stubs, backend):
    request = tokenize_pb2.CountTokensRequest(chat=chat(), with_token_ids=True)
    counted = await stubs.tokenize.CountTokens(request)
    assert bytes(each - 3 for each in counted.token_ids) == b"[user]hi"
    assert (counted.prompt_tokens, counted.truncated_tokens, counted.context_length) == (8, 0, 4096)
    assert backend.requests == []
    request.with_token_ids = False
    assert list((await stubs.tokenize.CountTokens(request)).token_ids) == []


async def test_count_of_a_prompt(stubs):
    request = tokenize_pb2.CountTokensRequest(generate=generate_pb2.GenerateRequest(model="plain", text="hello"))
    assert (await stubs.tokenize.CountTokens(request)).prompt_tokens == 5


async def test_render_only_does_not_matter_to_a_count(stubs):
    request = tokenize_pb2.CountTokensRequest(chat=chat(render_only=True))
    assert (await stubs.tokenize.CountTokens(request)).prompt_tokens == 8


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (tokenize_pb2.CountTokensRequest(), grpc.StatusCode.INVALID_ARGUMENT, "request"),
        (
            tokenize_pb2.CountTokensRequest(chat=chat_pb2.ChatRequest(model="talker")),
            grpc.StatusCode.INVALID_ARGUMENT,
            "chat.messages",
        ),
        (
            tokenize_pb2.CountTokensRequest(generate=generate_pb2.GenerateRequest(model="plain")),
            grpc.StatusCode.INVALID_ARGUMENT,
            "generate",
        ),
        (
            tokenize_pb2.CountTokensRequest(generate=generate_pb2.GenerateRequest(model="absent", text="x")),
            grpc.StatusCode.NOT_FOUND,
            "absent",
        ),
    ],
)
async def test_counts_that_are_refused(stubs, backend, request_, code, field):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.tokenize.CountTokens(request_)
    assert raised.value.code() is code
    assert field in raised.value.details()
    assert backend.specs == [], "no model is loaded for it"
