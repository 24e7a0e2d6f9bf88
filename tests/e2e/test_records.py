"""What a running server tells of its past: requests, events about models, and its log."""

import json
import os
import re
import signal
import subprocess

import grpc
import pytest
from tests.e2e.server import MODELS, PUNA, serving, wait_until
from tests.e2e.test_top import ENDLESS, puna
from tests.e2e.test_web_rpc import call

from puna_client.v1 import diagnostics_pb2, diagnostics_pb2_grpc

SECRET = "open sesame"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    (folder / "patterns").write_text("ses[a-z]+\n")
    own = {"PUNA_RECORDS": "1", "PUNA_RECORDS_REDACTION": str(folder / "patterns"), "OLLAMA_DEBUG": "1"}
    with serving(folder / "models", PUNA_KEYS=str(folder / "none"), **own) as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        yield running


def ask(server, method, **message):
    """Call a method by Connect, as the dashboard does."""
    status, answer = call(server, f"DiagnosticsService/{method}", json.dumps(message).encode())
    return status, json.loads(answer)


def records(server, **selection):
    return ask(server, "ListRequestRecords", **selection)[1].get("records", [])


def test_a_request_to_the_rest_api_is_found_with_its_prompt_and_answer(server):
    body = {"model": "llamita", "stream": False, "messages": [{"role": "user", "content": SECRET}]}
    answer = server.json("/api/chat", body)["message"]
    record = records(server, model="llamita")[0]
    assert (record["httpRoute"], record["outcome"]) == ("POST /api/chat", "REQUEST_OUTCOME_SUCCEEDED")
    content = ask(server, "GetRequestRecord", number=record["number"])[1]["record"]["content"]
    assert "open [redacted]" in content["sequences"][0]["prompt"]
    assert content["answers"][0]["text"] == answer["content"]
    assert content["redactedCount"] == 1
    shown = puna(server, "requests", "--show", record["number"])
    assert "open [redacted]" in shown
    assert answer["content"] in shown
    assert record["requestId"] in puna(server, "requests", "--past", "llamita")
    assert SECRET not in server.log()


def test_the_death_of_a_host_is_told_by_the_record_and_by_an_event(server):
    with server.open("/api/generate", ENDLESS | {"keep_alive": -1}) as answer:
        answer.readline()
        (running,) = records(server, model="scripted", outcome="REQUEST_OUTCOME_RUNNING")
        assert running["phase"] == "REQUEST_PHASE_DECODE"
        for pid in server.hosts():
            os.kill(pid, signal.SIGKILL)
        record = wait_until(lambda: records(server, model="scripted", outcome="REQUEST_OUTCOME_FAILED"))[0]
    assert (record["number"], record["errorReason"]) == (running["number"], "BACKEND_CRASHED")
    content = ask(server, "GetRequestRecord", number=record["number"])[1]["record"]["content"]
    assert content["answers"][0]["text"]
    assert "SIGKILL" in content["errorMessage"] or "killed" in content["errorMessage"]

    crashed = diagnostics_pb2.ModelRemovalCause.MODEL_REMOVAL_CAUSE_CRASHED
    with grpc.insecure_channel(server.grpc) as channel:
        stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
        died = set()
        for answer in stub.StreamServerEvents(diagnostics_pb2.StreamServerEventsRequest(follow=True), timeout=60):
            died |= {(each.host_died.model, each.host_died.status) for each in answer.events}
            if any(each.model_removed.cause == crashed for each in answer.events):
                break
        assert ("scripted:latest", "SIGKILL") in died
        lines = [
            line for answer in stub.StreamLogs(diagnostics_pb2.StreamLogsRequest(), timeout=60) for line in answer.lines
        ]
    assert any(line.request_id.endswith(f"/{record['requestId']}") for line in lines)


def test_others_who_reach_a_bridge_do_not_read_what_a_core_on_loopback_keeps(server):
    own = {"OLLAMA_HOST": "0.0.0.0:0", "PUNA_ALLOW_ANONYMOUS": "1", "PUNA_GRPC_HOST": server.grpc}
    bridge = subprocess.Popen(
        [PUNA, "rest"], env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = re.search(r":(\d+)$", bridge.stdout.readline().strip())[1]
        here, server.url = server.url, f"http://127.0.0.1:{port}"
        try:
            assert server.json("/api/tags")["models"]
            status, error = ask(server, "ListRequestRecords")
        finally:
            server.url = here
    finally:
        bridge.terminate()
        bridge.wait(20)
        bridge.stdout.close()
    assert (status, error["code"]) == (403, "permission_denied")
    assert records(server)
