"""Puna behind nginx, with the configuration that `tools/deploy/proxy` holds and other ports."""

import http.client
import json
import re
import socket
import ssl
import subprocess

import grpc
import pytest
from tests.apps.installed import debian
from tests.certificates import Certificates
from tests.deploy.conftest import DEPLOY
from tests.e2e.server import MODELS, serving, wait_until

from puna_client.v1 import chat_pb2, chat_pb2_grpc, message_pb2, options_pb2, server_pb2, server_pb2_grpc

NAME = "models.example"
ENDLESS = "b"
"""The last character of a prompt for which the model `scripted` writes without end."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home") / "models", PUNA_ALLOWED_HOSTS=NAME) as running:
        running.upload("scripted", MODELS / "scripted.gguf", parameters={"num_ctx": 1 << 17})
        yield running


@pytest.fixture(scope="module")
def ports(server, certificates, tmp_path_factory):
    """The ports on which nginx serves REST and gRPC."""
    nginx = debian("nginx", "nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    certificate, key = certificates.issue(NAME)
    rest, rpc = free_port(), free_port()
    text = (DEPLOY / "proxy/nginx.conf").read_text()
    for old, new in {
        "127.0.0.1:11434": server.url.removeprefix("http://"),
        "127.0.0.1:11435": server.grpc,
        "listen 443": f"listen 127.0.0.1:{rest}",
        "listen 8443": f"listen 127.0.0.1:{rpc}",
        "/etc/ssl/puna/fullchain.pem": str(certificate),
        "/etc/ssl/puna/key.pem": str(key),
    }.items():
        assert old in text
        text = text.replace(old, new)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    start = f"user root; daemon off; pid {folder}/pid; events {{}}"
    path.write_text(f"{start} http {{ access_log off; {paths} {text} }}")
    process = subprocess.Popen([nginx, "-c", path, "-e", folder / "errors"])
    try:
        wait_until((folder / "pid").exists, 20)
        yield rest, rpc
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def connection(ports, certificates):
    context = ssl.create_default_context(cafile=certificates.ca)
    made = http.client.HTTPSConnection("localhost", ports[0], context=context, timeout=60)
    yield made
    made.close()


def ask(connection, path, body=None, **headers):
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request("POST" if data else "GET", path, data, {"Host": NAME} | headers)
    return connection.getresponse()


def running(server):
    with grpc.insecure_channel(server.grpc) as channel:
        listed = server_pb2_grpc.ServerServiceStub(channel).ListRequests(server_pb2.ListRequestsRequest(), timeout=60)
    return [each for each in listed.requests if "scripted" in str(each)]


def test_tokens_come_before_the_end_and_a_client_that_leaves_ends_its_request(server, connection):
    body = {"model": "scripted", "prompt": ENDLESS, "raw": True, "options": {"num_predict": 100000}}
    answer = ask(connection, "/api/generate", body)
    assert answer.read1()  # of an answer without end
    assert running(server)
    answer.close()
    connection.close()
    wait_until(lambda: not running(server), 60)


def test_other_names_are_refused(connection):
    assert ask(connection, "/api/tags").status == 200
    connection.close()
    assert ask(connection, "/api/tags", Host="evil.example").status == 403


def test_large_bodies_pass(server, connection):
    answer = ask(connection, "/api/blobs/sha256:" + "0" * 64, b"x" * (4 << 20))
    assert answer.status == 400, answer.read()  # read to its end, and compared with the digest
    assert b"digest" in answer.read()


def test_chat_streams_over_grpc(server, ports, certificates):
    credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
    request = chat_pb2.ChatRequest(
        model="scripted",
        messages=[message_pb2.ChatMessage(role="user", content=ENDLESS)],
        options=options_pb2.RequestOptions(sampling=options_pb2.SamplingOptions(max_output_tokens=100000)),
    )
    with grpc.secure_channel(f"localhost:{ports[1]}", credentials) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamChat(request, timeout=60)
        assert next(call)
        call.cancel()
    wait_until(lambda: not running(server), 60)


def test_the_files_name_the_default_ports():
    for name in ("nginx.conf", "Caddyfile"):
        found = set(re.findall(r"127\.0\.0\.1:(\d+)", (DEPLOY / "proxy" / name).read_text()))
        assert found == {"11434", "11435"}, name
