"""Batches of a real server: killed, restarted, and beside other requests."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
from tests.e2e.server import PUNA, serving, wait_until

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


def upload(server, data, **headers):
    """Upload a file over REST; return status and answer."""
    body = (
        b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--B\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + data + b"\r\n--B--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=B"} | headers
    request = urllib.request.Request(server.url + "/v1/files", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_limits_hold_over_rest(tmp_path):
    small = {"PUNA_MAX_FILE_BYTES": "100000", "PUNA_MAX_FILES": "2", "PUNA_MAX_BATCH_REQUESTS": "2"}
    with starting(tmp_path, **small) as server:
        status, answer = upload(server, b"x" * 100_001)
        assert (status, "PUNA_MAX_FILE_BYTES" in answer["error"]["message"]) == (413, True)
        body = {"model": "scripted", "prompt": "x"}
        lines = [
            json.dumps({"custom_id": str(n), "method": "POST", "url": "/v1/completions", "body": body})
            for n in range(3)
        ]
        _, file = upload(server, "\n".join(lines).encode())
        asked = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
        status, _, text = server.ask("/v1/batches", asked)
        assert (status, b"PUNA_MAX_BATCH_REQUESTS" in text) == (413, True)
        assert upload(server, b"x")[0] == 200
        status, answer = upload(server, b"x")
        assert (status, "PUNA_MAX_FILES" in answer["error"]["message"]) == (413, True)
        assert server.json("/v1/batches")["data"] == []
        # What was refused has left nothing behind.
        assert len(list((tmp_path / "batches/files").iterdir())) == 2
        assert list((tmp_path / "batches/batches").iterdir()) == []


def test_a_bridge_of_its_own_names_what_is_wrong(tmp_path):
    """The bridge's own errors reach its client also where it sends the requests over a socket."""
    with starting(tmp_path) as server:
        _, file = upload(server, b'{"custom_id": "a"}\n')
        command = [PUNA, "rest", "--core", server.grpc]
        environment = os.environ | {"OLLAMA_HOST": "127.0.0.1:0"}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as bridge:
            try:
                server.url = re.search(r"REST on (\S+)", bridge.stdout.readline())[1]
                asked = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
                status, _, text = server.ask("/v1/batches", asked)
                assert (status, b"line 1: method must be POST" in text) == (400, True)
                assert upload(server, b"x")[0] == 200
            finally:
                bridge.terminate()
