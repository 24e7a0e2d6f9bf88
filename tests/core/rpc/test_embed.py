import asyncio
import struct
from contextlib import suppress

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from puna_client.v1 import embed_pb2, options_pb2


@pytest.fixture(autouse=True)
def embeds(backend):
    backend.facts = {"embedding_length": 3}


def request(*inputs, model="embedder", **fields):
    return embed_pb2.EmbedRequest(model=model, inputs=inputs, **fields)


async def test_lists_of_floats(stubs):
    answer = await stubs.embed.Embed(request("a", "bc"))
    assert [list(each.values) for each in answer.vectors] == [pytest.approx([0.6, 0.8, 0])] * 2
    assert answer.encoding == embed_pb2.VECTOR_ENCODING_FLOAT_LIST
    assert answer.usage.prompt_tokens == 7
    assert answer.timings.total.ToNanoseconds() > 0


async def test_packed(stubs):
    answer = await stubs.embed.Embed(request("a", encoding=embed_pb2.VECTOR_ENCODING_FLOAT32_LE))
    assert struct.unpack("<3f", answer.vectors[0].packed) == pytest.approx((0.6, 0.8, 0))
    assert not answer.vectors[0].values


async def test_vectors_in_parts(stubs, monkeypatch):
    monkeypatch.setattr("puna.rpc.embed.PART_BYTES", 30)
    asked = request(*"abcdefg", encoding=embed_pb2.VECTOR_ENCODING_FLOAT32_LE)
    whole = await stubs.embed.Embed(asked)
    call = stubs.embed.StreamVectors(asked)
    found = [each.part async for each in call]
    assert [len(each.vectors) for each in found] == [3, 3, 1, 0]
    assert [vector for each in found for vector in each.vectors] == list(whole.vectors)
    assert [each.HasField("usage") for each in found] == [False, False, False, True]
    assert (found[-1].usage, found[0].encoding) == (whole.usage, whole.encoding)


async def test_a_stream(stubs):
    async def texts():
        yield embed_pb2.StreamEmbedRequest(config=request())
        for index in range(100):
            yield embed_pb2.StreamEmbedRequest(item={"id": str(index), "input": "x" * index})

    answers = [answer async for answer in stubs.embed.StreamEmbed(texts())]
    assert [each.id for each in answers] == [str(index) for index in range(100)]
    assert [each.usage.prompt_tokens for each in answers] == [index + 2 for index in range(100)]


async def test_a_stream_that_waits_for_its_answers(stubs):
    call = stubs.embed.StreamEmbed()
    await call.write(embed_pb2.StreamEmbedRequest(config=request()))
    for index in range(3):
        await call.write(embed_pb2.StreamEmbedRequest(item={"id": str(index), "input": "x"}))
        assert (await call.read()).id == str(index)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_stream_without_configuration(stubs):
    call = stubs.embed.StreamEmbed()
    await call.write(embed_pb2.StreamEmbedRequest(item={"id": "1", "input": "x"}))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    call.cancel()


@pytest.mark.parametrize("bad", [{0}, {63}, {5, 40}, {1, 2, 3}])
async def test_a_text_that_cannot_be_embedded_fails_alone(stubs, bad):
    async def texts():
        yield embed_pb2.StreamEmbedRequest(config=request(options={"runtime": {"context_length": 100}}))
        for index in range(64):
            text = "x" * (200 if index in bad else index)
            yield embed_pb2.StreamEmbedRequest(item={"id": f"n{index}", "input": text})

    answers = {each.id: each async for each in stubs.embed.StreamEmbed(texts())}
    assert list(answers) == [f"n{index}" for index in range(64)]
    failed = {id_: each.error for id_, each in answers.items() if each.WhichOneof("result") == "error"}
    assert set(failed) == {f"n{index}" for index in bad}
    for error in failed.values():
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "INPUT_TOO_LONG")
        status = Status.FromString(error.status)
        assert (status.code, status.message) == (error.code, error.message)
    assert answers["n30"].usage.prompt_tokens == 32


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"config": {"model": "embedder", "options": {"options_json": '{"num_ctx": "x"}'}}}], "OPTION_TYPE"),
        ([{"config": {"model": "embedder", "dimensions": -1}}], "INVALID_REQUEST"),
        ([{"config": {"model": "embedder", "inputs": ["a"]}}], "INVALID_REQUEST"),
        ([{"config": {"model": "embedder"}}, {}], "INVALID_REQUEST"),
    ],
)
async def test_what_is_wrong_with_the_stream_ends_it(stubs, messages, reason):
    sent = [*messages, {"item": {"id": "1", "input": "x"}}]
    call = stubs.embed.StreamEmbed()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        with suppress(asyncio.InvalidStateError):  # the call has ended before all is sent
            for each in sent:
                await call.write(embed_pb2.StreamEmbedRequest(**each))
        while await call.read() is not grpc.aio.EOF:
            pass
    status = Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    info = ErrorInfo()
    status.details[0].Unpack(info)
    assert info.reason == reason


async def test_errors_end_a_stream(stubs):
    call = stubs.embed.StreamEmbed()
    await call.write(embed_pb2.StreamEmbedRequest(config=request(model="nothere")))
    await call.write(embed_pb2.StreamEmbedRequest(item={"id": "1", "input": "x"}))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.details() == 'model "nothere" not found, try pulling it first'
    call.cancel()


async def test_a_model_that_makes_none(stubs, backend):
    backend.facts = {}
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.embed.Embed(request("a", model="plain"))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "does not embed" in raised.value.details()


async def test_loading(stubs):
    options = options_pb2.RequestOptions(options_json='{"num_ctx": 32}')
    answer = await stubs.embed.Embed(request(options=options))
    assert (list(answer.vectors), answer.HasField("timings") and answer.timings.total.ToNanoseconds()) == ([], 0)
