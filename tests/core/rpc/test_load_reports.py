"""Load reports as a balancer of a client reads them, on the wire."""

import json
import math

import grpc.aio
import pytest
from tests.core.rpc.conftest import Stubs

from puna.auth.gate import Gate
from puna.backend import Prefill
from puna.rpc.load_reports import LoadReports
from puna.rpc.server import serving as running
from puna_client.interop.v1.orca_pb2 import OrcaLoadReport, OrcaLoadReportRequest
from puna_client.v1 import generate_pb2


@pytest.fixture
async def gated(serving):
    async with running(serving, "127.0.0.1:0", gate=Gate()) as bound, grpc.aio.insecure_channel(bound) as channel:
        yield Stubs(channel)


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
async def test_a_balancer_reads_the_reports_in_trailers(serving, backend, monkeypatch, streamed):
    """The one of gRPC's C library. It sends calls by the rate of each server per load."""
    told = []

    class Told(LoadReports):
        """The first server says that it is busy, the second that it is not."""

        def __init__(self, core):
            super().__init__(core)
            self.calls = 0
            told.append(self)

        def trailer(self):
            self.calls += 1
            load = OrcaLoadReport(application_utilization=0.9 if self is told[0] else 0.1, rps_fractional=10)
            monkeypatch.setattr(self, "_made", load.SerializeToString())
            monkeypatch.setattr(self, "_made_at", math.inf)
            return super().trailer()

    monkeypatch.setattr("puna.rpc.load_reports.LoadReports", Told)
    policy = {"weighted_round_robin": {"blackoutPeriod": "0s", "weightUpdatePeriod": "0.1s"}}
    options = (("grpc.service_config", json.dumps({"loadBalancingConfig": [policy]})),)
    asked = generate_pb2.GenerateRequest(model="plain", text="x")
    async with (
        running(serving, "127.0.0.1:0", gate=Gate()) as one,
        running(serving, "127.0.0.1:0", gate=Gate()) as two,
        grpc.aio.insecure_channel(f"ipv4:{one},{two}", options) as channel,
    ):
        stub = Stubs(channel).generate

        async def ask(calls):
            for _ in range(calls):
                backend.play("a")
                call = stub.StreamGenerate(asked) if streamed else stub.Generate(asked)
                assert [each async for each in call] if streamed else await call

        # A weight counts from the client's next update on, of which nothing tells.
        for _ in range(50):
            before = [each.calls for each in told]
            await ask(50)
            busy, idle = (each.calls - earlier for each, earlier in zip(told, before, strict=True))
            assert busy + idle == 50
            if idle > 4 * busy:
                break
    assert idle > 4 * busy > 0


async def test_a_report_has_the_load_of_the_server(gated, serving, backend):
    backend.play(*"abc")
    await gated.generate.Generate(generate_pb2.GenerateRequest(model="plain", text="x"))
    report = LoadReports(serving).report()
    assert report.rps_fractional > 0
    assert 0 < report.application_utilization < 1
    assert report.named_metrics["slots"] >= 1
    assert report.named_metrics["queued_requests"] == 0


async def test_a_balancer_may_ask_beside_the_calls(gated, serving, backend):
    method = gated.channel.unary_stream(
        "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics",
        request_serializer=OrcaLoadReportRequest.SerializeToString,
        response_deserializer=OrcaLoadReport.FromString,
    )
    request = OrcaLoadReportRequest()
    request.report_interval.FromMilliseconds(1)
    reports = method(request, timeout=20)
    assert (await reports.read()).application_utilization == 0
    backend.play(Prefill(0, 99), "a", 3600)
    busy = gated.generate.StreamGenerate(generate_pb2.GenerateRequest(model="plain", text="x"))
    while not (await busy.read()).deltas:
        pass
    report = await reports.read()
    while not report.application_utilization:
        report = await reports.read()
    assert report.named_metrics["active_requests"] == 1
    (loaded,) = serving.loaded()
    assert report.utilization["kv_cache"] == 100 / (loaded.slots * loaded.context_length)
    busy.cancel()
    reports.cancel()
