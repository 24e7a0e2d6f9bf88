import grpc
import pytest

from puna_client.v1 import models_pb2


@pytest.mark.parametrize("length", [100, 100_000])
async def test_a_long_error_comes_whole(core, client, fail, length):
    core.script("ListModels", fail(grpc.StatusCode.INTERNAL, "INTERNAL", "x" * length))
    async with client.get("/api/tags") as response:
        assert await response.json() == {"error": "x" * length}


async def test_a_message_beyond_grpc_s_default_of_4_mib_passes(core, client):
    core.script("GetModel", models_pb2.GetModelResponse(license="x" * (5 << 20)))
    async with client.post("/api/show", data='{"model": "m"}') as response:
        assert len((await response.json())["license"]) == 5 << 20
