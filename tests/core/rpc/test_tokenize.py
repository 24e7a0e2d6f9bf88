import grpc
import pytest

from puna.v1 import tokenize_pb2


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
