"""A crowd at a busy model: requests beyond the queue are refused, others are not slowed down, all may leave at once."""

import asyncio
import itertools
import json
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from tests.e2e.server import MODELS, serving, wait_until
from tests.hostile.bounds import unharmed

from puna_client.v1 import (
    embed_pb2,
    embed_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
    tokenize_pb2,
    tokenize_pb2_grpc,
)

BUSY = b"server busy, please try again.  maximum pending requests exceeded"
CROWD = 1500
ENDLESS = {"model": "scripted", "prompt": "b", "raw": True, "options": {"num_predict": 100_000}}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A server that runs one sequence at a time, with the usual queue."""
    with serving(tmp_path_factory.mktemp("home") / "models", OLLAMA_NUM_PARALLEL="1") as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        yield running


@pytest.fixture(scope="module")
def short_queue(tmp_path_factory):
    """A server with a queue of two."""
    environment = {"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_MAX_QUEUE": "2"}
    with serving(tmp_path_factory.mktemp("home") / "models", **environment) as running:
        for name in ("scripted", "embedder"):
            running.upload(name, MODELS / f"{name}.gguf")
        yield running


@pytest.fixture
def many_files():
    """Room for the crowd's sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def ask(server, body):
    """Begin a request on a connection of its own; return the writer, and what becomes of the answer."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    data = json.dumps(body).encode()
    writer.write(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return writer, asyncio.ensure_future(reader.read(1000))


def stats(server):
    """Return the server's figures of its models and requests."""
    with grpc.insecure_channel(server.grpc) as channel:
        models = models_pb2_grpc.ModelsServiceStub(channel).ListLoadedModels(models_pb2.ListLoadedModelsRequest())
        requests = server_pb2_grpc.ServerServiceStub(channel).ListRequests(
            server_pb2.ListRequestsRequest(page_size=1000)
        )
    return [(each.active_requests, each.queued_requests) for each in models.models], requests.requests


def positions(server):
    """The places of all requests in line, in order. The far end of a line hears of its places once a second."""
    return sorted(each.queue_position for each in stats(server)[1])


def test_a_crowd_is_refused_beyond_the_queue_and_may_leave_at_once(crowded, many_files):
    async def attack():
        first, running = await ask(crowded, ENDLESS)
        assert (await running).startswith(b"HTTP/1.1 200")
        crowd = []
        for _ in range(CROWD // 50):
            crowd += await asyncio.gather(*(ask(crowded, ENDLESS) for _ in range(50)))
        answers = [answer for _, answer in crowd]
        for soon in itertools.islice(asyncio.as_completed(answers, timeout=60), CROWD - 512):
            await soon
        await asyncio.sleep(0.2)
        refused = [answer.result() for answer in answers if answer.done()]
        assert len(refused) == CROWD - 512
        assert all(answer.startswith(b"HTTP/1.1 503") and BUSY in answer for answer in refused)
        async with asyncio.timeout(20):
            while await asyncio.to_thread(positions, crowded) != list(range(513)):  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0.5)
        assert stats(crowded)[0] == [(1, 512)]
        for writer, _ in [(first, running), *crowd]:
            writer.transport.abort()
        await asyncio.gather(*answers, return_exceptions=True)

    crowded.json("/api/generate", {"model": "scripted", "keep_alive": -1})
    with unharmed(crowded, within=8.0):  # a crowd of handlers shares two cores; the watchdog sees a blocked loop
        asyncio.run(attack())
    wait_until(lambda: stats(crowded) == ([(0, 0)], []))
    assert crowded.json("/api/generate", ENDLESS | {"stream": False, "options": {"num_predict": 2}})["done"]


def refusal(call):
    """The status of a call that must be refused, and how many seconds to wait before trying again."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    details = dict(raised.value.trailing_metadata())["grpc-status-details-bin"]
    retry = RetryInfo()
    assert any(detail.Unpack(retry) for detail in Status.FromString(details).details)
    return raised.value.code(), retry.retry_delay.ToSeconds()


def test_a_full_queue_over_grpc(short_queue):
    request = generate_pb2.GenerateRequest(model="scripted", text="b", raw=True)
    with unharmed(short_queue), grpc.insecure_channel(short_queue.grpc) as channel:
        stub = generate_pb2_grpc.GenerateServiceStub(channel)
        calls = [stub.StreamGenerate(request)]
        wait_until(lambda: next(calls[0]).deltas)
        calls += [stub.StreamGenerate(request) for _ in range(2)]
        wait_until(lambda: stats(short_queue)[0] == [(1, 2)])
        for refused in (lambda: stub.Generate(request), lambda: next(stub.StreamGenerate(request))):
            assert refusal(refused) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)
        status, _, text = short_queue.ask(
            "/v1/chat/completions", {"model": "scripted", "messages": [{"role": "user", "content": "b"}]}
        )
        assert (status, BUSY in text) == (503, True)
        for call in calls:
            call.cancel()
        wait_until(lambda: not stats(short_queue)[1])


def test_embeddings_and_tokens_wait_in_the_same_queue(short_queue):
    short_queue.json("/api/embed", {"model": "embedder", "input": "a", "keep_alive": -1})
    with grpc.insecure_channel(short_queue.grpc) as channel:
        asking = models_pb2_grpc.ModelsServiceStub(channel)
        loaded = asking.ListLoadedModels(models_pb2.ListLoadedModelsRequest()).models
    [pid] = [each.process_id for each in loaded if each.model.name.startswith("embedder")]
    body = {"model": "embedder", "input": "a"}
    with unharmed(short_queue), ThreadPoolExecutor(18) as threads, grpc.insecure_channel(short_queue.grpc) as channel:
        os.kill(pid, signal.SIGSTOP)
        try:
            waiting = [threads.submit(short_queue.ask, "/api/embed", body) for _ in range(18)]
            wait_until(lambda: len(stats(short_queue)[1]) == 18)
            for path in ("/api/embed", "/v1/embeddings"):
                status, _, text = short_queue.ask(path, body)
                assert (status, BUSY in text) == (503, True)
            embed = embed_pb2.EmbedRequest(model="embedder", inputs=["a"])
            tokenize = tokenize_pb2.TokenizeRequest(model="embedder", text="a")
            for call in (
                lambda: embed_pb2_grpc.EmbedServiceStub(channel).Embed(embed),
                lambda: tokenize_pb2_grpc.TokenizeServiceStub(channel).Tokenize(tokenize),
            ):
                assert refusal(call) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 1)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert [each.result()[0] for each in waiting] == 18 * [200]
