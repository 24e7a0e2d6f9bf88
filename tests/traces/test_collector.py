"""Traces of requests from a client in Go, through the core, to the host of the model, in a real collector."""

import json
import os
import subprocess
from itertools import pairwise

import pytest
from tests.clients.servers import PLUGIN
from tests.e2e.server import serving, wait_until

FACES = {"rest": "POST", "grpc": "puna.v1.GenerateService/Generate"}
"""Each face of the server, and words in the name of the span that the client's library makes of a call to it."""
PROTOCOLS = {"grpc": "grpc", "http/protobuf": "http"}
STAGES = ["load", "render", "prefill", "decode"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_trace_leads_from_the_client_through_the_core_to_the_host(protocol, programs, collector, tmp_path):
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")])),
        "PUNA_TRACES": "1",
        "PUNA_MAX_LOOP_SECONDS": "2",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{getattr(collector, PROTOCOLS[protocol])}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests",
    }
    with serving(tmp_path / "models", **settings) as running:
        running.make_for("scripted", "scripted")
        command = [programs / "client", running.url, running.grpc, collector.grpc]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        calls = {call["face"]: call for call in map(json.loads, done.stdout.splitlines())}
        assert set(calls) == set(FACES)
        for face, call in calls.items():
            received = _trace(collector, call["trace"])
            own, request = _path(received, face, FACES[face])
            assert request["name"] == "text_completion scripted"
            assert request["resource"]["service.name"] == "puna"
            assert request["resource"]["deployment.environment.name"] == "tests"
            assert request["attributes"]["gen_ai.operation.name"] == "text_completion"
            assert own["resource"].get("service.name") != "puna"
            _check_stages(received, request, STAGES if face == "rest" else STAGES[1:])
            # The host answers with the metadata that it got.
            version, trace, parent, flags = json.loads(call["answer"])["traceparent"].split("-")
            assert (version, trace, parent, flags) == ("00", call["trace"], request["spanId"], "01")
    rest, grpc = (call["trace"] for call in calls.values())
    assert rest != grpc


def _trace(collector, trace):
    """Wait until the client and the server have exported their parts of a trace; return its spans by id."""

    def found():
        spans = {each["spanId"]: each for each in collector.spans() if each["traceId"] == trace}
        roots = [each for each in spans.values() if not each.get("parentSpanId")]
        ended = [each for each in spans.values() if each["name"] == "text_completion scripted"]
        return spans if roots and ended else None

    return wait_until(found, 60, "the collector did not get the trace")


def _path(received, face, words):
    """Return the spans of the client's call and of the server's request, whose parents lead to the client's root."""
    (request,) = (each for each in received.values() if each["name"].startswith("text_completion"))
    own = received[request["parentSpanId"]]
    assert words in own["name"]
    root = received[own["parentSpanId"]]
    assert root["name"] == face
    assert not root.get("parentSpanId")
    return own, request


def _check_stages(received, request, names):
    """Check that the stages lie below the request, one after the other."""
    stages = [each for each in received.values() if each.get("parentSpanId") == request["spanId"]]
    stages.sort(key=lambda each: int(each["startTimeUnixNano"]))
    assert [each["name"] for each in stages] == names
    assert all(int(one["endTimeUnixNano"]) <= int(other["startTimeUnixNano"]) for one, other in pairwise(stages))
