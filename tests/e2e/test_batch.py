"""Batches of a real server: killed, restarted, and beside other requests."""

import os
import signal
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
from tests.e2e.server import serving, wait_until

from puna_client.v1 import batch_pb2, batch_pb2_grpc, generate_pb2, options_pb2, server_pb2, server_pb2_grpc

MANY = 24
SCRIPTED = Path(__file__).parents[1] / "plugins/scripted"
WITH_SCRIPTED = os.pathsep.join((str(SCRIPTED), os.environ.get("PYTHONPATH", "")))
"""The backend that does what the prompt says."""


def item(custom_id, text, model="scripted", tokens=8):
    options = options_pb2.RequestOptions(sampling={"max_output_tokens": tokens})
    request = generate_pb2.GenerateRequest(model=model, text=text, raw=True, options=options)
    return batch_pb2.CreateBatchRequest(item=batch_pb2.BatchItem(custom_id=custom_id, generate=request))


@contextmanager
def starting(folder, **environment):
    """Run a server with the model `scripted`."""
    with serving(folder / "models", PYTHONPATH=WITH_SCRIPTED, **environment) as server:
        if not [each for each in server.json("/api/tags")["models"] if each["name"] == "scripted:latest"]:
            server.make_for("scripted", "scripted")
        yield server


@contextmanager
def batches(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield batch_pb2_grpc.BatchServiceStub(channel)


def get(stub, id_):
    return stub.GetBatch(batch_pb2.GetBatchRequest(id=id_)).batch


def results(stub, id_, **selection):
    return list(stub.StreamBatchResults(batch_pb2.StreamBatchResultsRequest(id=id_, **selection), timeout=60))


def has_more(stub, id_, results):
    """Return whether a batch has more results than that, or has ended."""
    found = get(stub, id_)
    return found.completed_count > results or found.end_time.seconds


def running(server):
    """Return the requests that run."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = server_pb2_grpc.ServerServiceStub(channel)
        return list(stub.ListRequests(server_pb2.ListRequestsRequest()).requests)


def kill(server):
    """Kill a server and its hosts at once."""
    hosts = server.hosts()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    for pid in hosts:
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists())


def test_a_killed_server_loses_no_answer_and_gives_none_twice(tmp_path):
    """Killed again and again, at any moment, until the batch is done."""
    seen, id_, kills = {}, "", 0
    for _ in range(30):
        with starting(tmp_path) as server:
            with batches(server) as stub:
                if not id_:
                    made = stub.CreateBatch(iter([item(str(n), f"answer @wait 0.02 {n}") for n in range(MANY)]))
                    id_ = made.batch.id
                found = {each.index: each for each in results(stub, id_)}
                # What a client has seen once is there as it was.
                assert {index: found[index] for index in seen} == seen
                more = partial(has_more, stub, id_, len(seen))
                wait_until(more)
                seen = {each.index: each for each in results(stub, id_)}
                if get(stub, id_).state == batch_pb2.BATCH_STATE_DONE:
                    break
            kill(server)
            kills += 1
    assert kills >= 1
    with starting(tmp_path) as server, batches(server) as stub:
        found = results(stub, id_)
        assert (get(stub, id_).completed_count, get(stub, id_).failed_count) == (MANY, 0)
    assert sorted(int(each.custom_id) for each in found) == list(range(MANY))
    assert [each.index for each in found] == list(range(1, MANY + 1))


def test_a_restarted_server_goes_on(tmp_path):
    with starting(tmp_path) as server, batches(server) as stub:
        made = stub.CreateBatch(iter([item("fast", "x"), item("slow", "@wait 3600")])).batch
        wait_until(lambda: get(stub, made.id).completed_count == 1)
        # The request that runs for an hour does not keep the server from ending.
    with starting(tmp_path) as server, batches(server) as stub:
        found = get(stub, made.id)
        assert (found.state, found.completed_count) == (batch_pb2.BATCH_STATE_RUNNING, 1)
        stub.CancelBatch(batch_pb2.CancelBatchRequest(id=made.id))
        assert [each.custom_id for each in results(stub, made.id)] == ["fast"]


def test_requests_overtake_a_batch(tmp_path):
    """With one slot and no queue, and a request of a batch that never ends, every other request is answered."""
    few = {"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_MAX_QUEUE": "0", "OLLAMA_MAX_LOADED_MODELS": "1"}
    with starting(tmp_path, **few) as server, batches(server) as stub:
        made = stub.CreateBatch(iter([item("endless", "@wait 3600")])).batch
        for model in ("scripted", "llamita", "scripted"):
            # The request of the batch runs, on the only model that may be loaded.
            wait_until(lambda: [each["name"] for each in server.json("/api/ps")["models"]] == ["scripted:latest"])
            wait_until(lambda: running(server))
            request = {"model": model, "prompt": "hello", "raw": True, "stream": False, "options": {"num_predict": 3}}
            assert server.json("/api/generate", request, timeout=30)["done"]
        assert get(stub, made.id).completed_count == 0
        stub.DeleteBatch(batch_pb2.DeleteBatchRequest(id=made.id))


def test_no_prompt_is_logged(tmp_path):
    with starting(tmp_path, OLLAMA_DEBUG="1") as server:
        with batches(server) as stub:
            parts = [item("id-secret", "prompt-secret"), item("b", "prompt-secret @crash 9"), item("c", "x", "nosuch")]
            made = stub.CreateBatch(iter(parts)).batch
            found = results(stub, made.id, follow=True)
        assert {each.custom_id: each.WhichOneof("result") for each in found} == {
            "id-secret": "generate",
            "b": "error",
            "c": "error",
        }
        assert "secret" not in server.log()
