"""The gate in front of the handlers of a server and of the channel in the process."""

from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.core.rpc.conftest import Stubs

from puna.auth.gate import Gate
from puna.auth.keys import KeyFile
from puna.errors import QueueFullError
from puna.rpc.authorization import Admission
from puna.rpc.health_list import HealthListRequest, HealthListResponse
from puna.rpc.inprocess import InProcessChannel
from puna.rpc.server import add_services
from puna.rpc.server import serving as running
from puna_client.v1 import embed_pb2, generate_pb2, models_pb2, server_pb2

SERVICE_CONFIG = (Path(__file__).parents[3] / "proto/service_config.json").read_text()


@pytest.fixture
def keys(tmp_path):
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
async def closed(serving, keys):
    """Stubs of a server that wants keys, and a valid key as metadata."""
    _, text = keys.create(name="shop")
    async with (
        running(serving, "127.0.0.1:0", gate=Gate(keys)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Stubs(channel), (("authorization", f"Bearer {text}"),)


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code()


async def test_every_kind_of_call_is_guarded(closed):
    stubs, key = closed
    calls = (
        stubs.models.ListModels(models_pb2.ListModelsRequest()),
        stubs.generate.StreamGenerate(generate_pb2.GenerateRequest(model="plain")).read(),
        stubs.models.UploadBlob(iter([models_pb2.UploadBlobRequest(config={"digest": "sha256:0"})])),
        stubs.embed.StreamEmbed(iter([embed_pb2.StreamEmbedRequest()])).read(),
    )
    assert [await refused(call) for call in calls] == [grpc.StatusCode.UNAUTHENTICATED] * 4
    assert (await stubs.models.ListModels(models_pb2.ListModelsRequest(), metadata=key)).models


async def test_a_call_is_refused_before_its_message_is_read(closed):
    stubs, _ = closed
    large = generate_pb2.GenerateRequest(model="plain", text="x" * (200 << 20))
    # The message exceeds the server's limit, which nobody finds out.
    assert await refused(stubs.generate.Generate(large)) is grpc.StatusCode.UNAUTHENTICATED


async def test_health_is_open(closed):
    stubs, _ = closed
    answer = await health_pb2_grpc.HealthStub(stubs.channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_lists_no_models_to_callers_without_a_key(closed, backend):
    stubs, key = closed
    await stubs.models.LoadModel(models_pb2.LoadModelRequest(name="plain"), metadata=key)
    method = "/grpc.health.v1.Health/List"
    listing = stubs.channel.unary_unary(method, HealthListRequest.SerializeToString, HealthListResponse.FromString)
    assert not [name for name in (await listing(HealthListRequest())).statuses if name.startswith("puna.v1/")]


async def test_the_channel_in_the_process_is_guarded_too(serving, keys, backend):
    backend.play("a")
    _, text = keys.create(name="shop")
    async with InProcessChannel(Admission(Gate(keys), bridge=True)) as channel:
        add_services(serving, channel)
        stubs = Stubs(channel)
        assert await refused(stubs.server.GetServerInfo(server_pb2.GetServerInfoRequest())) is (
            grpc.StatusCode.UNAUTHENTICATED
        )
        asked = generate_pb2.GenerateRequest(model="plain", text="x")
        answer = await stubs.generate.Generate(asked, metadata=(("x-api-key", text),))
        assert answer.finish.usage.output_tokens


async def test_only_the_bridge_tells_when_a_request_arrived(serving, backend):
    """A client of the port could otherwise give its requests any duration."""
    backend.play("a")
    asked = generate_pb2.GenerateRequest(model="plain", text="x")
    asked.options.start_time.FromSeconds(1)
    async with InProcessChannel(Admission(Gate(), bridge=True)) as channel:
        add_services(serving, channel)
        answer = await Stubs(channel).generate.Generate(asked)
        assert answer.finish.timings.total.seconds > 3600
    async with running(serving, "127.0.0.1:0", gate=Gate()) as other, grpc.aio.insecure_channel(other) as channel:
        answer = await Stubs(channel).generate.Generate(asked)
        assert answer.finish.timings.total.seconds < 3600


async def test_each_call_has_an_id_that_its_client_may_choose(serving, backend):
    asked = generate_pb2.GenerateRequest(model="plain", text="x")
    async with running(serving, "127.0.0.1:0", gate=Gate()) as address, grpc.aio.insecure_channel(address) as channel:
        stubs = Stubs(channel)
        for given in ("trace-7", "x" * 129, ""):
            call = stubs.generate.Generate(asked, metadata=(("x-request-id", given),))
            found = dict(await call.initial_metadata())["x-request-id"]
            assert found == given if given == "trace-7" else found.startswith("r")
            await call
        failing = stubs.generate.Generate(generate_pb2.GenerateRequest(), metadata=(("x-request-id", "trace-8"),))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await failing
    info = ErrorInfo()
    assert any(each.Unpack(info) for each in details_of(failed.value))
    assert info.metadata["request_id"] == "trace-8"


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
async def test_a_client_repeats_a_call_that_failed_before_its_first_message(serving, backend, monkeypatch, streamed):
    """A call that has received initial metadata is never repeated, so an error must come without any."""
    failures = [QueueFullError() for _ in range(2)]
    real = serving.generate

    def generate(*arguments):
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(serving, "generate", generate)
    monkeypatch.setattr("puna.rpc.status._wait", lambda _: 0.01)
    backend.play("a")
    asked = generate_pb2.GenerateRequest(model="plain", text="x")
    asked.options.omit_progress = True
    options = (("grpc.service_config", SERVICE_CONFIG),)
    async with (
        running(serving, "127.0.0.1:0", gate=Gate()) as address,
        grpc.aio.insecure_channel(address, options) as channel,
    ):
        stub = Stubs(channel).generate
        call = stub.StreamGenerate(asked) if streamed else stub.Generate(asked)
        answer = [each async for each in call][-1].done if streamed else await call
        assert dict(await call.initial_metadata())["x-request-id"]
    assert failures == []
    assert answer.finish.usage.output_tokens


async def test_calls_under_one_chosen_id_are_told_apart(serving, backend):
    """CancelRequests must reach one of them alone."""
    for _ in range(2):
        backend.play("a", 60)
    asked = generate_pb2.GenerateRequest(model="plain", text="x")
    async with running(serving, "127.0.0.1:0", gate=Gate()) as address, grpc.aio.insecure_channel(address) as channel:
        stubs, same = Stubs(channel), (("x-request-id", "same"),)
        calls = [stubs.generate.StreamGenerate(asked, metadata=same) for _ in range(2)]
        for call in calls:
            await call.read()
        listed = await stubs.server.ListRequests(server_pb2.ListRequestsRequest())
        ids = [each.id for each in listed.requests]
        assert (ids[0], ids[1].startswith("same.r")) == ("same", True)
        done = await stubs.server.CancelRequests(server_pb2.CancelRequestsRequest(ids=["same"]))
        assert done.ids == ["same"]
        left = (await stubs.server.ListRequests(server_pb2.ListRequestsRequest())).requests
        assert [each.id for each in left if each.id not in done.ids] == ids[1:]
        for call in calls:
            call.cancel()


def details_of(error):
    return Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details
