"""The status of a model follows its host: clients that watch it see loads, crashes and the end of the server."""

import contextlib
import signal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from puna_client.v1 import generate_pb2, generate_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_crash_and_a_drain_are_seen(start):
    server = start("core", PUNA_DRAIN_DELAY="2s").ready()
    with grpc.insecure_channel(server.grpc) as channel:
        generating = generate_pb2_grpc.GenerateServiceStub(channel)
        request = health_pb2.HealthCheckRequest(service="puna.v1/scripted")
        seen = (each.status for each in health_pb2_grpc.HealthStub(channel).Watch(request, timeout=60))
        assert next(seen) == NOT_SERVING
        generating.Generate(generate_pb2.GenerateRequest(model="scripted", text="a", raw=True))
        assert next(seen) == SERVING
        with contextlib.suppress(grpc.RpcError):
            generating.Generate(generate_pb2.GenerateRequest(model="scripted", text="@crash SIGKILL", raw=True))
        assert next(seen) == NOT_SERVING
        generating.Generate(generate_pb2.GenerateRequest(model="scripted", text="a", raw=True))
        assert next(seen) == SERVING
        server.signal(signal.SIGTERM)
        assert next(seen) == NOT_SERVING
    assert server.ended()[0] == 0
