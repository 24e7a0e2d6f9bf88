import asyncio

import pytest

from puna_client import AsyncClient, DeadlineExceededError, ModelNotFoundError, UnavailableError
from puna_client.v1.models_pb2 import ListModelsRequest
from puna_client.v1.options_pb2 import RequestOptions
from puna_client.v1.server_pb2 import ListRequestsRequest
from puna_client.v1.server_pb2_grpc import ServerServiceStub


@pytest.fixture
async def client(address):
    async with AsyncClient(address) as made:
        yield made


async def ended(client):
    """Wait until the server has no request."""
    async with asyncio.timeout(10):
        while (await ServerServiceStub(client.channel).ListRequests(ListRequestsRequest())).requests:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_stream_has_items_and_a_result(client, backend):
    backend.play(*"abc")
    stream = client.generate("plain", "x", raw=True)
    texts = [delta.text async for delta in stream]
    answer = await stream.result()
    assert answer.text == "".join(texts) == "abc"
    assert answer.finish.usage.output_tokens


async def test_leaving_the_loop_ends_the_call(client, backend):
    backend.play("a", 3600)
    async for delta in client.generate("plain", "x", raw=True):
        assert delta.text
        break
    await ended(client)


async def test_the_end_of_its_block_ends_the_call(client, backend):
    backend.play("a", 3600)
    async with client.generate("plain", "x", raw=True) as stream:
        assert (await anext(stream)).text
    with pytest.raises(asyncio.CancelledError):
        await stream.result()
    await ended(client)


async def test_a_cancelled_task_ends_its_call(client, backend):
    backend.play("a", 3600)
    task = asyncio.ensure_future(client.generate("plain", "x", raw=True).result())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(client)


async def test_failed_calls_raise_their_reason(client):
    for call in (client.get_model("nowhere"), client.chat("nowhere", "Hi").result(), client.embed("nowhere", "Hi")):
        with pytest.raises(ModelNotFoundError, match="nowhere"):
            await call


async def test_metadata_is_sent_by_a_client_of_its_own(client):
    with pytest.raises(ModelNotFoundError) as caught:
        await client.with_metadata(("x-request-id", "abc")).get_model("nowhere")
    assert caught.value.metadata["request_id"] == "abc"
    with pytest.raises(ModelNotFoundError) as caught:
        await client.get_model("nowhere")
    assert caught.value.metadata["request_id"] != "abc"


async def test_a_timeout_ends_a_call(client, backend):
    backend.play("a", 3600)
    with pytest.raises(DeadlineExceededError):
        await client.generate("plain", "x", raw=True, timeout=0.2).result()
    await ended(client)


async def test_progress_is_told(client, backend):
    backend.play("a")
    told = []
    await client.generate("plain", "x", raw=True, on_progress=told.append).result()
    assert told


async def test_readiness_is_that_of_the_server_or_of_a_model(client, backend):
    await client.wait_until_ready(timeout=5)
    waiting = asyncio.ensure_future(client.wait_until_ready("plain", timeout=20))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await client.load_model("plain", options=RequestOptions())
    await waiting
    await client.unload_model("plain")


async def test_readiness_has_a_timeout(unused_tcp_port):
    async with AsyncClient(f"127.0.0.1:{unused_tcp_port}") as client:
        with pytest.raises(DeadlineExceededError):
            await client.wait_until_ready(timeout=0.3)
        with pytest.raises(UnavailableError):
            await client.list_models()


async def test_a_list_is_read_to_its_last_page(client, monkeypatch):
    def requests(**fields):
        return ListModelsRequest(page_size=2, **fields)

    whole = await client.list_models()
    monkeypatch.setattr("puna_client.operations.models_pb2.ListModelsRequest", requests)
    assert await client.list_models() == whole
    assert len(whole) > 4
