import grpc
import pytest

from puna_client.v1 import server_pb2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_root_says_that_the_server_runs_without_asking_the_core(core, client, method):
    async with client.request(method, "/") as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert await response.text() == ("Ollama is running" if method == "GET" else "")
    assert core.requests == []


async def test_the_version_is_that_of_the_api_and_not_of_the_server(core, client):
    core.script("GetServerInfo", server_pb2.GetServerInfoResponse(version="1.2", ollama_version="0.9"))
    async with client.get("/api/version") as response:
        assert await response.text() == '{"version":"0.9"}'


async def test_a_core_that_ends_is_told(core, client, fail):
    core.script("GetServerInfo", fail(grpc.StatusCode.UNAVAILABLE, "SERVER_ENDING", "the server is shutting down"))
    async with client.get("/api/version") as response:
        assert (response.status, await response.text()) == (503, '{"error":"the server is shutting down"}')
