"""Browsers reach the whole core through the REST port, without what only callers on the machine may do."""

import json
import struct
import urllib.error
import urllib.request


def call(server, method, body, content_type="application/json"):
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(f"{server.url}/puna.v1.{method}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_unary_call_and_a_stream(server):
    status, answer = call(server, "ModelsService/ListModels", b"{}")
    assert status == 200
    assert "scripted:latest" in [each["name"] for each in json.loads(answer)["models"]]
    data = json.dumps({"name": "scripted", "verbose": True}).encode()
    body = b"\0" + struct.pack(">I", len(data)) + data
    status, answer = call(server, "ModelsService/StreamModel", body, "application/connect+json")
    size = int.from_bytes(answer[1:5], "big")
    assert json.loads(answer[5 : 5 + size])["part"]["model"]["name"] == "scripted:latest"
    assert answer[5 + size :] == b"\x02\0\0\0\x02{}"


def test_files_of_the_server_cannot_be_named(server):
    data = json.dumps({"paths": ["/"], "dryRun": True}).encode()
    body = b"\0" + struct.pack(">I", len(data)) + data
    _, answer = call(server, "ModelsService/ImportModels", body, "application/connect+json")
    error = json.loads(answer[5:])["error"]
    assert error["code"] == "permission_denied"
