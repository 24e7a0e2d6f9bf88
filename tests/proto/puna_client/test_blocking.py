import asyncio

import pytest

from puna_client import Client, DeadlineExceededError, ModelNotFoundError
from puna_client.v1.models_pb2 import ListModelsRequest
from puna_client.v1.server_pb2 import ListRequestsRequest
from puna_client.v1.server_pb2_grpc import ServerServiceStub


@pytest.fixture
async def used(address):
    """A function that runs a function of a client in a thread, beside the server."""

    async def used(work):
        with Client(address) as client:
            return await asyncio.wait_for(asyncio.to_thread(work, client), 20)

    return used


def left(client):
    """Return whether the server has no request; wait for that a while."""
    stub = ServerServiceStub(client.channel)
    return any(not stub.ListRequests(ListRequestsRequest()).requests for _ in range(1000))


async def test_a_stream_has_items_and_a_result(used, backend):
    backend.play(*"abc")

    def work(client):
        stream = client.generate("plain", "x", raw=True)
        return [delta.text for delta in stream], stream.result().text

    texts, whole = await used(work)
    assert "".join(texts) == whole == "abc"


async def test_leaving_the_loop_ends_the_call(used, backend):
    backend.play("a", 3600)

    def work(client):
        for delta in client.generate("plain", "x", raw=True):
            assert delta.text
            break
        return left(client)

    assert await used(work)


async def test_the_end_of_its_block_ends_the_call(used, backend):
    backend.play("a", 3600)

    def work(client):
        with client.generate("plain", "x", raw=True) as stream:
            assert next(stream).text
        return left(client)

    assert await used(work)


async def test_failed_calls_raise_their_reason(used):
    for call in (lambda c: c.get_model("nowhere"), lambda c: c.chat("nowhere", "Hi").result()):
        with pytest.raises(ModelNotFoundError):
            await used(call)


async def test_metadata_is_sent_by_a_client_of_its_own(used):
    with pytest.raises(ModelNotFoundError) as caught:
        await used(lambda client: client.with_metadata(("x-request-id", "abc")).get_model("nowhere"))
    assert caught.value.metadata["request_id"] == "abc"


async def test_a_timeout_ends_a_call(used, backend):
    backend.play("a", 3600)
    with pytest.raises(DeadlineExceededError):
        await used(lambda client: client.generate("plain", "x", raw=True, timeout=0.2).result())
    assert await used(left)


async def test_unary_calls_and_readiness(used):
    def work(client):
        client.wait_until_ready(timeout=5)
        client.load_model("plain")
        client.wait_until_ready("plain", timeout=5)
        was_loaded = client.unload_model("plain").was_loaded
        return was_loaded, [model.name for model in client.list_models()], client.get_model("plain").model.name

    was_loaded, listed, described = await used(work)
    assert was_loaded
    assert "plain:latest" in listed
    assert described == "plain:latest"


async def test_a_list_is_read_to_its_last_page(used, monkeypatch):
    def requests(**fields):
        return ListModelsRequest(page_size=2, **fields)

    whole = await used(Client.list_models)
    monkeypatch.setattr("puna_client.operations.models_pb2.ListModelsRequest", requests)
    assert await used(Client.list_models) == whole
    assert len(whole) > 4
