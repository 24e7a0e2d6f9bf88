import asyncio
import shutil

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.core.serving.conftest import stocked as shared

from puna.models.store import ModelStore
from puna.rpc.health_list import HealthListRequest, HealthListResponse
from puna.rpc.server import SERVICES
from puna_client.v1 import models_pb2

__all__ = ["shared"]
STATUS = health_pb2.HealthCheckResponse


@pytest.fixture
def stocked(shared, tmp_path):
    """A store that a test may take away."""
    shutil.copytree(shared.root, tmp_path / "models")
    return ModelStore(tmp_path / "models")


@pytest.fixture
def health(stubs):
    return health_pb2_grpc.HealthStub(stubs.channel)


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health(stubs, service):
    stub = health_pb2_grpc.HealthStub(stubs.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_an_unknown_service_is_not_found_and_watched_as_unknown(health):
    request = health_pb2.HealthCheckRequest(service="nonsense")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health.Check(request)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    watching = health.Watch(request)
    assert (await watching.read()).status == STATUS.SERVICE_UNKNOWN
    watching.cancel()


async def test_a_store_that_cannot_be_read_is_told_and_so_is_its_return(health, stocked, tmp_path, monkeypatch):
    monkeypatch.setattr("puna.rpc.health.WATCH_SECONDS", 0.01)
    watching = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == STATUS.SERVING
    stocked.root.rename(tmp_path / "away")
    stocked.root.write_text("no folder")
    assert (await asyncio.wait_for(watching.read(), 10)).status == STATUS.NOT_SERVING
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == STATUS.NOT_SERVING
    stocked.root.unlink()
    (tmp_path / "away").rename(stocked.root)
    assert (await asyncio.wait_for(watching.read(), 10)).status == STATUS.SERVING
    watching.cancel()


async def test_a_model_is_serving_while_it_is_loaded(health, stubs, backend, monkeypatch):
    monkeypatch.setattr("puna.rpc.health.WATCH_SECONDS", 0.01)
    # Any spelling of a name stands for the model.
    request = health_pb2.HealthCheckRequest(service="puna.v1/plain")
    assert (await health.Check(request)).status == STATUS.NOT_SERVING
    watching = health.Watch(health_pb2.HealthCheckRequest(service="puna.v1/plain:latest"))
    assert (await watching.read()).status == STATUS.NOT_SERVING
    await stubs.models.LoadModel(models_pb2.LoadModelRequest(name="plain"))
    assert (await asyncio.wait_for(watching.read(), 10)).status == STATUS.SERVING
    assert (await health.Check(request)).status == STATUS.SERVING
    await stubs.models.UnloadModel(models_pb2.UnloadModelRequest(name="plain"))
    assert (await asyncio.wait_for(watching.read(), 10)).status == STATUS.NOT_SERVING
    watching.cancel()


@pytest.mark.parametrize("service", ["puna.v1/nosuch", "puna.v1/", "puna.v1/../x", "puna.v1/a b"])
async def test_a_model_that_is_not_in_the_store_is_unknown(health, service):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health.Check(health_pb2.HealthCheckRequest(service=service))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_all_statuses_are_listed(stubs, backend):
    method = "/grpc.health.v1.Health/List"
    listing = stubs.channel.unary_unary(method, HealthListRequest.SerializeToString, HealthListResponse.FromString)
    found = (await listing(HealthListRequest())).statuses
    assert {name: each.status for name, each in found.items()} == dict.fromkeys(("", *SERVICES), STATUS.SERVING)
    await stubs.models.LoadModel(models_pb2.LoadModelRequest(name="plain"))
    assert (await listing(HealthListRequest())).statuses["puna.v1/plain:latest"].status == STATUS.SERVING
