"""Requests that end early in every phase, for every reason: the right status, a free slot, no request in the list.

Three clients at once are in the phase: a stream and a unary call over gRPC, and a stream over REST.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from urllib.parse import urlsplit

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from tests.e2e.server import MODELS, serving, wait_until
from tests.hostile.started import PLUGIN

from puna_client.v1 import (
    generate_pb2,
    generate_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
    usage_pb2,
)

PHASES = {
    "queue": ("scripted", "soon"),
    "load": ("stalled", "soon"),
    "prefill": ("scripted", "@prefill 900 .02 soon"),
    "decode": ("scripted", "soon @wait 20"),
}
"""Model and prompt with which a request stays in the phase."""
HOLD = "held @wait 20"
SLOTS = 3
DEADLINE = 1.0


@contextlib.contextmanager
def stalling_server(folder, **more):
    """Run a server with few slots, a model that follows its prompt, and one whose load takes a minute."""
    path = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    environment = {"OLLAMA_NUM_PARALLEL": str(SLOTS), "OLLAMA_MAX_LOADED_MODELS": "3", "PYTHONPATH": path} | more
    with serving(folder / "models", **environment) as running:
        file, fields = MODELS / "scripted.gguf", {"backend": "scripted", "format": "scripted"}
        running.upload("scripted", file, **fields)
        running.upload("stalled", file, **fields, backend_options={"load": "stall"})
        yield running


@pytest.fixture(scope="module")
def stalling(tmp_path_factory):
    """A server for all tests of this module but the one that ends it."""
    with stalling_server(tmp_path_factory.mktemp("home")) as running:
        yield running


def request(model, prompt):
    return generate_pb2.GenerateRequest(model=model, text=prompt, raw=True)


def outcome(error):
    """Return code and reason of a call that failed."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    info = ErrorInfo()
    for detail in Status.FromString(details).details if details else ():
        if detail.Is(ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    return error.code(), info.reason


class Clients:
    """A stream, a unary call and a stream over REST with one prompt, each in a thread of its own."""

    def __init__(self, server, model, prompt, deadline=60.0):
        self._server, self._deadline = server, deadline
        self._model, self._prompt = model, prompt
        self.channel = grpc.insecure_channel(server.grpc)
        stub = generate_pb2_grpc.GenerateServiceStub(self.channel)
        self.stream = stub.StreamGenerate(request(model, prompt), timeout=deadline)
        self.unary = stub.Generate.future(request(model, prompt), timeout=deadline)
        self.rest = socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port))
        body = json.dumps({"model": model, "prompt": prompt, "raw": True}).encode()
        head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        self.rest.sendall(head % len(body) + body)
        self.texts, self.reasons = [], []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.rest_lines = []
        self._rest_reader = threading.Thread(target=self._read_rest, daemon=True)
        self._rest_reader.start()

    def _read(self):
        with contextlib.suppress(grpc.RpcError):
            for message in self.stream:
                self.texts += [delta.text for delta in message.deltas]
                self.reasons += [message.done.finish.reason] if message.HasField("done") else []

    def _read_rest(self):
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            answer = http.client.HTTPResponse(self.rest)
            answer.begin()
            self.rest_lines += [json.loads(line) for line in answer]

    def leave(self):
        """Cancel the calls, and close the connection of the third."""
        self.stream.cancel()
        self.unary.cancel()
        self.hang_up()

    def hang_up(self):
        with contextlib.suppress(OSError):
            self.rest.shutdown(socket.SHUT_RDWR)

    def ended(self):
        """Wait for all three; return code and reason of the two calls, and the last line of the third."""
        outcomes = []
        for call in (self.stream, self.unary):
            wait_until(call.done, 30, "a call has no end")
            outcomes.append((grpc.StatusCode.OK, "") if call.code() is grpc.StatusCode.OK else outcome(call))
        self._rest_reader.join(30)
        assert not self._rest_reader.is_alive(), "a stream over REST has no end"
        self.rest.close()
        self._reader.join(10)
        self.channel.close()
        return outcomes, self.rest_lines[-1] if self.rest_lines else None


def listed(server):
    """Return the requests that wait or run."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = server_pb2_grpc.ServerServiceStub(channel)
        return list(stub.ListRequests(server_pb2.ListRequestsRequest(), timeout=10).requests)


@contextlib.contextmanager
def in_phase(server, phase, deadline=60.0):
    """Bring three requests into a phase; afterwards see that nothing of them is left and that the slots are free."""
    model, prompt = PHASES[phase]
    with contextlib.ExitStack() as held:
        if phase == "queue" and not listed(server):
            holders = Clients(server, "scripted", HOLD)
            held.callback(holders.ended)
            held.callback(holders.leave)
            wait_until(lambda: len(listed(server)) == SLOTS and holders.texts)
        before, hosts = len(listed(server)), set(server.hosts())
        clients = Clients(server, model, prompt, deadline)
        wait_until(lambda: len(listed(server)) == before + 3)
        if phase == "decode":
            wait_until(lambda: clients.texts and all(each.output_tokens for each in listed(server)))
        elif phase == "queue":
            wait_until(lambda: sum(each.queue_position > 0 for each in listed(server)) >= 3)
        elif phase == "load":
            clients.hosts = wait_until(lambda: set(server.hosts()) - hosts)
        elif phase == "prefill":
            wait_until(lambda: all(each.queue_position == 0 for each in listed(server)))
        yield clients
    if server.process.poll() is None:
        wait_until(lambda: not listed(server), 5, "a request is left in the list")
        outcomes, last = Clients(server, "scripted", "again @wait .1").ended()
        assert [code for code, _ in outcomes] == [grpc.StatusCode.OK] * 2
        assert last["done"]


@pytest.mark.parametrize("phase", PHASES)
def test_a_deadline(stalling, phase):
    with in_phase(stalling, phase, DEADLINE) as clients:
        wait_until(lambda: clients.stream.done() and clients.unary.done(), 5)
        clients.hang_up()
        outcomes, _ = clients.ended()
        assert [code for code, _ in outcomes] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2


@pytest.mark.parametrize("phase", PHASES)
def test_clients_leave(stalling, phase):
    with in_phase(stalling, phase) as clients:
        clients.leave()
        outcomes, _ = clients.ended()
        assert [code for code, _ in outcomes] == [grpc.StatusCode.CANCELLED] * 2


@pytest.mark.parametrize("phase", PHASES)
def test_an_operator_cancels(stalling, phase):
    with in_phase(stalling, phase) as clients:
        ids = [each.id for each in listed(stalling)][-3:]
        with grpc.insecure_channel(stalling.grpc) as channel:
            stub = server_pb2_grpc.ServerServiceStub(channel)
            assert sorted(stub.CancelRequests(server_pb2.CancelRequestsRequest(ids=ids)).ids) == sorted(ids)
        outcomes, last = clients.ended()
        if phase == "decode":
            # The clients keep the output. REST has no such end.
            assert [code for code, _ in outcomes] == [grpc.StatusCode.OK] * 2
            reasons = [*clients.reasons, clients.unary.result().finish.reason]
            assert reasons == [usage_pb2.FINISH_REASON_CANCELLED] * 2
            assert clients.unary.result().text
        else:
            assert [code for code, _ in outcomes] == [grpc.StatusCode.CANCELLED] * 2
        assert last == {"error": "the request was cancelled through CancelRequests"}


@pytest.mark.parametrize("phase", PHASES)
def test_the_host_is_killed(stalling, phase):
    """A load, or a request without an answer yet, begins anew on another host, and fails if that one is killed too."""
    expected = (grpc.StatusCode.UNAVAILABLE, "BACKEND_CRASHED")
    if phase == "load":
        expected = (grpc.StatusCode.FAILED_PRECONDITION, "LOAD_FAILED")
    elif phase == "queue":
        expected = (grpc.StatusCode.OK, "")
    with in_phase(stalling, phase) as clients:
        killed = kill_hosts(stalling)
        if phase == "prefill":
            wait_until(lambda: set(loaded(stalling)) - killed)
            kill_hosts(stalling)
        elif phase == "load":
            wait_until(lambda: set(stalling.hosts()) - killed)
            kill_hosts(stalling)
        outcomes, last = clients.ended()
        assert outcomes == [expected] * 2
        assert last["done"] if phase == "queue" else "SIGKILL" in last["error"]


def kill_hosts(server):
    killed = set(server.hosts())
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    return killed


def loaded(server):
    """Return the process ids of the hosts of loaded models."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = models_pb2_grpc.ModelsServiceStub(channel)
        return [each.process_id for each in stub.ListLoadedModels(models_pb2.ListLoadedModelsRequest()).models]


def test_the_server_drains(tmp_path):
    """A request that waits for a slot gets it while there is time; when the time is up, every request ends."""
    with stalling_server(tmp_path, PUNA_MAX_DRAIN_SECONDS="1") as server, contextlib.ExitStack() as entered:
        phases = [entered.enter_context(in_phase(server, phase)) for phase in ("prefill", "queue", "load")]
        server.process.send_signal(signal.SIGTERM)
        for clients in phases:
            outcomes, last = clients.ended()
            assert outcomes == [(grpc.StatusCode.UNAVAILABLE, "SERVER_ENDING")] * 2
            assert last == {"error": "the server is shutting down"}
        assert server.process.wait(10) == 0
