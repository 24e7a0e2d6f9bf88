"""A client that leaves stops the model."""

import grpc
import pytest
from tests.e2e.server import wait_until

from puna_client.v1 import generate_pb2, generate_pb2_grpc, server_pb2, server_pb2_grpc


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def running(channel):
    stub = server_pb2_grpc.ServerServiceStub(channel)
    return stub.ListRequests(server_pb2.ListRequestsRequest(model="scripted"), timeout=10).requests


def test_over_rest(server, channel):
    # The script of "b" goes round and round.
    body = {"model": "scripted", "prompt": "b", "raw": True, "options": {"num_predict": 30000}}
    with server.open("/api/generate", body) as answer:
        answer.readline()
        assert len(running(channel)) == 1
    wait_until(lambda: not running(channel))


ENDLESS = generate_pb2.GenerateRequest(model="scripted", text="b", raw=True)


def test_over_grpc(server, channel):
    call = generate_pb2_grpc.GenerateServiceStub(channel).StreamGenerate(ENDLESS, timeout=60)
    next(call)
    assert len(running(channel)) == 1
    call.cancel()
    wait_until(lambda: not running(channel))


def test_a_deadline_ends_a_call(channel):
    with pytest.raises(grpc.RpcError) as caught:
        list(generate_pb2_grpc.GenerateServiceStub(channel).StreamGenerate(ENDLESS, timeout=1))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: not running(channel))
