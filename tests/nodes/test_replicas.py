"""A model with a replica on each of three nodes, of which one is killed."""

import json
import os
import signal
import threading
import time
from contextlib import ExitStack

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from tests.e2e.server import serving, wait_until
from tests.nodes.test_server import CLEAR_SECONDS, SCRIPTED, prepare

from puna_client.v1 import generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc

VARIABLES = {"PYTHONPATH": os.pathsep.join([str(SCRIPTED), os.environ.get("PYTHONPATH", "")])}


class Answer:
    """A streamed answer that a thread reads."""

    def __init__(self, channel, prompt):
        self.pieces, self.error, self.ended_at = [], None, 0.0
        request = generate_pb2.GenerateRequest(model="scripted", text=prompt, raw=True)
        self._call = generate_pb2_grpc.GenerateServiceStub(channel).StreamGenerate(request, timeout=120)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            for message in self._call:
                self.pieces += [delta.text for delta in message.deltas]
        except grpc.RpcError as error:
            self.error = error
        self.ended_at = time.monotonic()

    def end(self):
        self._thread.join(120)
        assert self.ended_at, "the stream hangs"
        return self.pieces

    @property
    def info(self):
        """The variables of its error."""
        details, found = dict(self.error.trailing_metadata())["grpc-status-details-bin"], ErrorInfo()
        next(each for each in Status.FromString(details).details if each.Is(ErrorInfo.DESCRIPTOR)).Unpack(found)
        return found.reason, dict(found.metadata)

    def cancel(self):
        self._call.cancel()
        self._thread.join(30)


@pytest.fixture(params=["3"])
def cluster_of_three(start_node, tmp_path, cluster, request):
    """Three nodes by their addresses, a server whose model has a replica on each, and what starts an answer.

    The parameter is another number of replicas.
    """
    with ExitStack() as stack:
        nodes = {each.address: each for each in (stack.enter_context(start_node(**VARIABLES)) for _ in range(3))}
        settings = {
            "PUNA_LAUNCHER": "static",
            "PUNA_HOSTS": ",".join(nodes),
            "PUNA_CLUSTER_TLS": str(cluster / "core"),
            "PUNA_REPLICAS": request.param,
            "PUNA_ROUTING": "least-loaded",
            "OLLAMA_NUM_PARALLEL": "2",
        }
        server = stack.enter_context(serving(tmp_path / "models", **(settings | VARIABLES)))
        prepare(server)
        channel = stack.enter_context(grpc.insecure_channel(server.grpc))

        def ask(prompt):
            answer = Answer(channel, prompt)
            stack.callback(answer.cancel)
            return answer

        yield nodes, server, ask


def replicas(server):
    with grpc.insecure_channel(server.grpc) as channel:
        listed = models_pb2_grpc.ModelsServiceStub(channel).ListLoadedModels(models_pb2.ListLoadedModelsRequest())
    return [replica for each in listed.models for replica in each.replicas]


def test_a_killed_node_costs_only_the_answers_that_have_begun(cluster_of_three):
    nodes, server, ask = cluster_of_three
    assert ask("a").end() == ["a"]
    wait_until(lambda: {each.node for each in replicas(server)} == set(nodes))
    begun = [ask("a @wait 600") for _ in range(3)]
    wait_until(lambda: [each.active_requests for each in replicas(server)] == [1, 1, 1])
    wait_until(lambda: all(each.pieces for each in begun))
    # These take the other slot of each replica, and the last six wait.
    waiting = [ask(f"@wait 3 {number}") for number in range(9)]
    wait_until(lambda: sum(each.queued_requests for each in replicas(server)) == 6)
    victim = next(iter(nodes))
    killed_at = time.monotonic()
    nodes[victim].end(signal.SIGKILL)
    wait_until(lambda: any(each.ended_at for each in begun))
    [broken] = [each for each in begun if each.ended_at]
    assert broken.ended_at - killed_at < CLEAR_SECONDS
    assert broken.error.code() is grpc.StatusCode.UNAVAILABLE
    assert victim in broken.error.details()
    assert "the answer breaks off after 1 delta" in broken.error.details()
    reason, variables = broken.info
    assert (reason, variables["node"], variables["output_deltas"]) == ("BACKEND_CRASHED", victim, "1")
    assert [each.end() for each in waiting] == [[str(number)] for number in range(9)]
    assert sum(bool(each.ended_at) for each in begun) == 1
    # Another replica takes the place of the one that is lost.
    wait_until(lambda: len(replicas(server)) == 3)
    assert {each.node for each in replicas(server)} == set(nodes) - {victim}


def test_nodes_that_are_all_gone_are_a_clear_error(cluster_of_three):
    nodes, server, ask = cluster_of_three
    body = {"model": "scripted", "prompt": "a @wait 600", "raw": True}
    with server.open("/api/generate", body) as answer:
        assert json.loads(answer.readline())["response"] == "a"
        for node in nodes.values():
            node.end(signal.SIGKILL)
        assert "the answer breaks off after 1 delta" in json.loads(answer.read().splitlines()[-1])["error"]
    failed = ask("a")
    failed.end()
    assert failed.error.code() is grpc.StatusCode.UNAVAILABLE
    assert failed.info[0] == "NODE_UNAVAILABLE"
    assert server.ask("/api/generate", body)[0] == 503


@pytest.mark.parametrize("cluster_of_three", ["1-2"], indirect=True)
def test_requests_that_wait_start_a_replica_on_another_node(cluster_of_three):
    _, server, ask = cluster_of_three
    holders = [ask("a @wait 600") for _ in range(2)]
    wait_until(lambda: all(each.pieces for each in holders))
    assert len(replicas(server)) == 1
    # The slots are taken, and these wait until there are more.
    assert [each.end() for each in [ask("b") for _ in range(4)]] == [["b"]] * 4
    assert len({each.node for each in replicas(server)}) == 2
    assert not any(each.ended_at for each in holders)
