import asyncio

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from tests.core.inprocess import loading
from tests.core.serving.asking import until

from puna.backend import BackendError
from puna.rpc.server import serving as running
from puna.runtime.pool import ModelPool
from puna.serving.core import Serving
from puna_client.v1 import generate_pb2, generate_pb2_grpc, options_pb2, usage_pb2


def request(model="plain", text="a", **fields):
    return generate_pb2.GenerateRequest(model=model, text=text, **fields)


def reason(error):
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.code == error.code().value[0]
    return info.reason


async def test_unary(stubs, backend):
    backend.play("Hel", "lo")
    answer = await stubs.generate.Generate(request())
    assert answer.text == "Hello"
    assert answer.finish.reason == usage_pb2.FINISH_REASON_STOP
    assert answer.finish.usage.prompt_tokens == 1
    assert answer.finish.timings.total.ToNanoseconds() >= answer.finish.timings.load.ToNanoseconds() > 0
    assert list(answer.context.ids) == [byte + 3 for byte in b"aHello"]


async def test_streaming(stubs, backend):
    backend.play("Hel", "lo")
    messages = [message async for message in stubs.generate.StreamGenerate(request())]
    assert [delta.text for message in messages for delta in message.deltas] == ["Hel", "lo"]
    assert [message.HasField("done") for message in messages] == [False] * (len(messages) - 1) + [True]
    assert messages[-1].done.finish.reason == usage_pb2.FINISH_REASON_STOP
    assert messages[0].progress.loading.fraction == 0.5 or any(m.HasField("progress") for m in messages)


async def test_log_probabilities(stubs, backend):
    backend.play("é")
    options = options_pb2.RequestOptions(logprobs=True, top_logprobs=1)
    answer = await stubs.generate.Generate(request(options=options))
    (entry,) = answer.logprobs
    assert (entry.text, entry.raw, entry.token_id, entry.logprob) == ("é", "é".encode(), 7, -0.5)
    assert [each.text for each in entry.top] == ["é"]


async def test_render_only(stubs):
    answer = await stubs.generate.Generate(request("talker", render_only=True))
    assert answer.rendered.text == "[user]a"
    assert not answer.HasField("finish")


async def test_load(stubs):
    messages = [message async for message in stubs.generate.StreamGenerate(request(text=""))]
    assert messages[-1].done.finish.reason == usage_pb2.FINISH_REASON_LOADED


@pytest.mark.parametrize(
    ("fields", "code", "why", "text"),
    [
        ({"model": "nothere"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "model 'nothere' not found"),
        ({"suffix": "z"}, grpc.StatusCode.FAILED_PRECONDITION, "CAPABILITY_MISSING", None),
        (
            {"options": options_pb2.RequestOptions(options_json='{"top_k": "x"}')},
            grpc.StatusCode.INVALID_ARGUMENT,
            "OPTION_TYPE",
            'option "top_k" must be of type integer',
        ),
    ],
)
async def test_errors(stubs, fields, code, why, text):
    for call in (
        stubs.generate.Generate(request(**fields)),
        anext(aiter(stubs.generate.StreamGenerate(request(**fields)))),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert (raised.value.code(), reason(raised.value)) == (code, why)
        assert text is None or raised.value.details() == text


async def test_an_error_after_the_first_piece_ends_the_stream(stubs, backend):
    backend.play("a", 0.05, BackendError("no more paper"))
    texts = []
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for message in stubs.generate.StreamGenerate(request()):
            texts += [delta.text for delta in message.deltas]
    assert texts == ["a"]
    assert (raised.value.code(), reason(raised.value)) == (grpc.StatusCode.INTERNAL, "BACKEND_FAILED")
    assert "no more paper" in raised.value.details()


@pytest.mark.parametrize("long", [False, True])
async def test_long_texts(stubs, long):
    metadata = (("puna-long-errors", "1"),) if long else ()
    fields = options_pb2.RequestOptions(
        options_json="{}", constraint=options_pb2.OutputConstraint(json_schema='"' + "é" * 10_000 + '"')
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stubs.generate.Generate(request(options=fields), metadata=metadata)
    assert len(raised.value.details().encode()) <= 1024
    whole = dict(raised.value.trailing_metadata()).get("puna-error-bin")
    assert (whole is not None) is long
    assert whole is None or whole.decode().count("é") == 10_000


class Broken(Serving):
    """Fails in a way that nobody thought of."""

    async def generate(self, request, tell=None):
        raise KeyError(request.prompt)
        yield


@pytest.fixture
async def broken(stocked, settings, registry, backend, tmp_path):
    async with (
        ModelPool(registry, settings, socket_dir=tmp_path, load=loading(backend)) as pool,
        running(Broken(stocked, pool, settings), "127.0.0.1:0") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield generate_pb2_grpc.GenerateServiceStub(channel)


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_nobody_expected_says_nothing_of_the_prompt(broken, caplog, streamed):
    call = broken.StreamGenerate if streamed else broken.Generate
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        if streamed:
            await anext(aiter(call(request(text="my secret"))))
        else:
            await call(request(text="my secret"))
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in raised.value.details() + caplog.text
    assert "KeyError" in caplog.text


class TestLeaving:
    async def test_cancelling_a_stream(self, stubs, backend):
        backend.play("a", 60)
        call = stubs.generate.StreamGenerate(request())
        async for message in call:
            if message.deltas:
                break
        assert backend.running == 1
        call.cancel()
        await gone(backend)

    async def test_cancelling_during_prefill(self, stubs, backend):
        backend.play(60)
        call = stubs.generate.Generate(request())
        task = asyncio.ensure_future(call)
        await until(lambda: backend.running)
        task.cancel()
        await gone(backend)

    async def test_deadline(self, stubs, backend):
        backend.play("a", 60)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stubs.generate.Generate(request(), timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await gone(backend)

    async def test_a_client_that_does_not_read(self, stubs, backend):
        backend.play(*[f"{index} " * 2000 for index in range(2000)], 60)
        call = stubs.generate.StreamGenerate(request())
        await call.read()
        await until(lambda: backend.running)
        call.cancel()
        await gone(backend)

    async def test_while_it_loads(self, stubs, backend):
        backend.load_seconds = 60
        with pytest.raises(grpc.aio.AioRpcError):
            await stubs.generate.Generate(request(), timeout=0.1)
        backend.load_seconds = 0
        await stubs.generate.Generate(request())


async def gone(backend):
    await until(lambda: not backend.running)
