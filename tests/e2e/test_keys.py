"""Keys, permissions, exposure and TLS of a real server, over both faces, and from the command line."""

import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from tests.certificates import Certificates
from tests.e2e.server import PUNA, serving

from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    diagnostics_pb2,
    diagnostics_pb2_grpc,
    message_pb2,
    models_pb2,
    models_pb2_grpc,
    server_pb2,
    server_pb2_grpc,
)

CHAT = {
    "model": "llamita",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
    "options": {"num_predict": 3},
}


def puna(server, *words, **environment):
    """Run a command beside the server; return its output."""
    done = subprocess.run(
        [PUNA, *words],
        env=os.environ | {"PUNA_GRPC_HOST": server.grpc} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout if done.returncode == 0 else done.stderr


def ask(server, path, body=None, context=None, method=None, **headers):
    """Return status, headers and JSON of an answer over REST."""
    data = json.dumps(body).encode() if body is not None else None
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(server.url + path, data, names, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return answer.status, answer.headers, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def bearer(key):
    return (("authorization", f"Bearer {key}"),)


def reason(error):
    """Return the reason and the retry delay of a failed call."""
    info, retry = ErrorInfo(), RetryInfo()
    trailers = dict(error.trailing_metadata())
    for detail in Status.FromString(trailers["grpc-status-details-bin"]).details:
        detail.Unpack(info) or detail.Unpack(retry)
    return info.reason, retry.retry_delay.seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    with serving(folder / "models", PUNA_KEYS=str(folder / "keys.json")) as running:
        running.keys = folder / "keys.json"
        yield running


@pytest.fixture(scope="module")
def make(server):
    """Return a function that makes a key; the server has noticed it when it returns."""

    def made(name, *words):
        key = puna(server, "key", "create", name, *words, PUNA_KEYS=str(server.keys)).strip()
        assert key.startswith("puna_")
        time.sleep(1.1)
        return key

    return made


@pytest.fixture(scope="module")
def boss(make):
    return make("boss", "--allow", "all", "--local")


@pytest.fixture(scope="module")
def shop(make, boss):
    return make("shop", "--models", "llamita")


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened


def test_without_a_key_nothing_is_served(server, shop, channel):
    status, headers, body = ask(server, "/api/chat", CHAT)
    assert (status, headers["WWW-Authenticate"], body) == (401, "Bearer", {"error": "this server needs an API key"})
    for path in ("/api/tags", "/v1/models", "/api/ps", "/api/version"):
        assert ask(server, path)[0] == 401
    with pytest.raises(grpc.RpcError) as refused:
        models_pb2_grpc.ModelsServiceStub(channel).ListModels(models_pb2.ListModelsRequest())
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason(refused.value)[0] == "UNAUTHENTICATED"


@pytest.mark.parametrize("header", ["Authorization", "X_Api_Key", "api_key"])
def test_the_headers_of_clients(server, shop, header):
    value = f"Bearer {shop}" if header == "Authorization" else shop
    assert ask(server, "/api/chat", CHAT, **{header: value})[0] == 200
    message = {"model": "llamita", "max_tokens": 3, "messages": CHAT["messages"]}
    assert ask(server, "/v1/messages", message, **{header: value})[0] == 200


def test_a_wrong_key_is_told_in_the_form_of_each_api(server, shop):
    key = {"Authorization": f"Bearer {shop[:-1]}"}
    assert ask(server, "/api/chat", CHAT, **key)[2] == {"error": "the API key is not valid"}
    assert ask(server, "/v1/chat/completions", CHAT, **key)[2]["error"]["message"] == "the API key is not valid"
    status, _, body = ask(server, "/v1/messages", CHAT | {"max_tokens": 3}, **key)
    assert (status, body["error"]["type"]) == (401, "authentication_error")


def test_a_key_sees_its_models_alone(server, shop, boss, channel):
    key = {"Authorization": f"Bearer {shop}"}
    assert [each["name"] for each in ask(server, "/api/tags", **key)[2]["models"]] == ["llamita:latest"]
    assert len(ask(server, "/api/tags", Authorization=f"Bearer {boss}")[2]["models"]) == 2
    other = {"model": "llamita-embed", "input": "x"}
    assert ask(server, "/api/embed", other, Authorization=f"Bearer {boss}")[0] == 200
    for path, body in (("/api/embed", other), ("/api/show", {"model": "llamita-embed"}), ("/v1/embeddings", other)):
        assert ask(server, path, body, **key)[0] == 403
    assert ask(server, "/api/ps", **key)[2]["models"] in ([], ask(server, "/api/ps", **key)[2]["models"][:1])
    request = models_pb2.GetModelRequest(name="llamita-embed")
    with pytest.raises(grpc.RpcError) as refused:
        models_pb2_grpc.ModelsServiceStub(channel).GetModel(request, metadata=bearer(shop))
    assert reason(refused.value)[0] == "MODEL_NOT_ALLOWED"


def test_a_key_does_what_it_allows_alone(server, shop, channel):
    key = {"Authorization": f"Bearer {shop}"}
    forbidden = (
        ("/api/delete", {"model": "llamita"}, "DELETE"),
        ("/api/copy", {"source": "llamita", "destination": "x"}, "POST"),
        ("/api/pull", {"model": "x"}, "POST"),
        ("/api/create", {"model": "x", "from": "llamita"}, "POST"),
        ("/api/push", {"model": "llamita"}, "POST"),
    )
    for path, body, method in forbidden:
        status, _, text = ask(server, path, body | {"stream": False}, method=method, **key)
        assert (status, "lacks the permission" in text["error"]) == (403, True), path
    with pytest.raises(grpc.RpcError) as refused:
        server_pb2_grpc.ServerServiceStub(channel).ListRequests(server_pb2.ListRequestsRequest(), metadata=bearer(shop))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_limit_says_when_to_try_again(server, make, boss, channel):
    slow = make("slow", "--requests-per-minute", "2")
    key = {"Authorization": f"Bearer {slow}"}
    assert [ask(server, "/api/chat", CHAT, **key)[0] for _ in range(2)] == [200, 200]
    status, headers, _ = ask(server, "/v1/chat/completions", CHAT, **key)
    assert (status, 0 < int(headers["Retry-After"]) <= 30) == (429, True)
    request = chat_pb2.ChatRequest(model="llamita", messages=[message_pb2.ChatMessage(role="user", content="hi")])
    with pytest.raises(grpc.RpcError) as refused:
        chat_pb2_grpc.ChatServiceStub(channel).Chat(request, metadata=bearer(slow))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (reason(refused.value)[0], 0 < reason(refused.value)[1] <= 30) == ("RATE_LIMITED", True)
    # Listing runs no model.
    assert ask(server, "/api/tags", **key)[0] == 200


def test_usage_is_counted_by_key(server, make, boss, channel):
    fresh = make("fresh", "--tokens-per-day", "10")
    service = server_pb2_grpc.ServerServiceStub(channel)
    _, _, answer = ask(server, "/api/chat", CHAT, Authorization=f"Bearer {fresh}")
    own = service.ListUsage(server_pb2.ListUsageRequest(), metadata=bearer(fresh)).keys
    assert [each.key_name for each in own] == ["fresh"]
    assert own[0].requests == 1
    counts = (answer["prompt_eval_count"], answer["eval_count"])
    assert (own[0].prompt_tokens, own[0].output_tokens) == counts
    assert own[0].day_tokens == sum(counts)
    # Streams count too, and the quota is then used up.
    while own[0].day_tokens < 10:
        ask(server, "/api/chat", CHAT, Authorization=f"Bearer {fresh}")
        own = service.ListUsage(server_pb2.ListUsageRequest(), metadata=bearer(fresh)).keys
    assert ask(server, "/api/chat", CHAT, Authorization=f"Bearer {fresh}")[0] == 429
    everyone = service.ListUsage(server_pb2.ListUsageRequest(), metadata=bearer(boss)).keys
    assert {"fresh", "boss", "shop"} <= {each.key_name for each in everyone}


def test_only_some_may_jump_the_queue_or_name_files(server, shop, boss, channel, tmp_path):
    service = models_pb2_grpc.ModelsServiceStub(channel)
    request = models_pb2.ImportModelsRequest(paths=[str(tmp_path)], dry_run=True)
    list(service.ImportModels(request, metadata=bearer(boss)))
    with pytest.raises(grpc.RpcError) as refused:
        list(service.ImportModels(request, metadata=bearer(shop)))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_commands_of_the_same_account_need_no_key(server, shop, tmp_path):
    assert "llamita-embed" in puna(server, "list")
    assert "llamita-embed" not in puna(server, "list", PUNA_API_KEY=shop)
    assert "PUNA_API_KEY" in puna(server, "list", PUNA_API_KEY="wrong")
    assert "no such" not in puna(server, "import", str(tmp_path), "--dry-run")


def test_a_revoked_key_is_refused(server, make, boss):
    gone = make("gone")
    assert ask(server, "/api/tags", Authorization=f"Bearer {gone}")[0] == 200
    assert "revoked" in puna(server, "key", "revoke", "gone", PUNA_KEYS=str(server.keys))
    time.sleep(1.1)
    assert ask(server, "/api/tags", Authorization=f"Bearer {gone}")[0] == 401
    listed = puna(server, "key", "list", PUNA_KEYS=str(server.keys))
    assert "revoked" in next(line for line in listed.splitlines() if " gone " in line)


def test_no_key_reaches_the_log(server, shop):
    ask(server, "/api/tags", Authorization=f"Bearer {shop[:-1]}")
    assert shop[:-1] not in server.log()


def test_only_what_is_exposed_is_served(tmp_path):
    with serving(tmp_path / "models", PUNA_EXPOSE="generate,chat", PUNA_KEYS=str(tmp_path / "none")) as running:
        assert running.ask("/api/chat", CHAT)[0] == 200
        assert running.ask("/v1/chat/completions", CHAT)[0] == 200
        assert running.ask("/api/version")[0] == 200
        for path, body in (("/api/tags", None), ("/api/embed", {"model": "llamita", "input": "x"}), ("/api/ps", None)):
            assert running.ask(path, body)[0] == 403, path
        text = {"model": "llamita", "text": "x", "tokens": [5], "messages": None}
        for path, body in (
            ("/api/tokenize", text),
            ("/api/detokenize", text),
            ("/v1/messages/count_tokens", CHAT),
            ("/v1/rerank", {"model": "llamita", "query": "x", "documents": ["y"]}),
            ("/v1/completions", {"model": "llamita", "prompt": "x", "echo": True, "logprobs": 1}),
        ):
            assert running.ask(path, body)[0] == 403, path
        assert "llamita" in puna(running, "list")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
@pytest.mark.parametrize("variable", ["OLLAMA_HOST", "PUNA_GRPC_HOST"])
def test_strangers_are_not_served_without_keys(tmp_path, address, variable):
    own = {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_GRPC_HOST": "127.0.0.1:0", "OLLAMA_MODELS": str(tmp_path / "models")}
    own |= {"PUNA_KEYS": str(tmp_path / "none"), variable: address}
    done = subprocess.run([PUNA, "serve"], env=os.environ | own, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    for word in (variable, "puna key create", "PUNA_ALLOW_ANONYMOUS=1"):
        assert word in done.stderr


def test_strangers_are_served_if_the_operator_says_so(tmp_path):
    environment = {"OLLAMA_HOST": "0.0.0.0:0", "PUNA_ALLOW_ANONYMOUS": "1", "PUNA_KEYS": str(tmp_path / "none")}
    environment |= {"PUNA_RECORDS": "1"}
    with serving(tmp_path / "models", **environment) as running:
        assert "every operation on every model is open to them" in running.log()
        # What others have asked is not among these operations.
        with grpc.insecure_channel(running.grpc) as channel:
            stub = diagnostics_pb2_grpc.DiagnosticsServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.ListRequestRecords(diagnostics_pb2.ListRequestRecordsRequest())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "OUTCOME" in puna(running, "requests", "--past")


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path)


def test_tls_on_both_faces_and_a_certificate_that_is_renewed(certificates, tmp_path):
    pem, key = certificates.issue("server")
    own = {"PUNA_TLS_CERTIFICATE": str(pem), "PUNA_TLS_KEY": str(key), "PUNA_KEYS": str(tmp_path / "none")}
    context = ssl.create_default_context(cafile=certificates.ca)

    def served():
        host, _, port = running.url.removeprefix("https://").rpartition(":")
        rest = ssl.get_server_certificate((host, int(port)))
        host, _, port = running.grpc.rpartition(":")
        return rest, ssl.get_server_certificate((host, int(port)))

    with serving(tmp_path / "models", **own) as running:
        assert running.url.startswith("https://")
        assert ask(running, "/api/tags", context=context)[0] == 200
        with pytest.raises(urllib.error.URLError):
            ask(running, "/api/tags")  # the system does not know the authority
        far = {"PUNA_GRPC_HOST": f"https://{running.grpc}", "PUNA_TLS_CA": str(certificates.ca)}
        assert "llamita" in puna(running, "list", **far)
        before = served()
        assert before[0] == before[1] == pem.read_text()
        # A half-written renewal must not end the service.
        pem.write_text("-----BEGIN")
        assert served() == before
        certificates.issue("server")
        time.sleep(0.1)
        assert served() == (pem.read_text(), pem.read_text())
        assert served() != before


def test_a_client_without_a_certificate_is_refused(certificates, tmp_path):
    pem, key = certificates.issue("server")
    own = {"PUNA_TLS_CERTIFICATE": str(pem), "PUNA_TLS_KEY": str(key), "PUNA_TLS_CLIENT_CA": str(certificates.ca)}
    with serving(tmp_path / "models", PUNA_KEYS=str(tmp_path / "none"), **own) as running:
        context = ssl.create_default_context(cafile=certificates.ca)
        with pytest.raises(OSError, match=r"(?i)certificate required|reset|alert|closed connection"):
            ask(running, "/api/tags", context=context)
        context.load_cert_chain(*certificates.issue("client"))
        assert ask(running, "/api/tags", context=context)[0] == 200
        roots, pair = certificates.ca.read_bytes(), [path.read_bytes() for path in certificates.issue("client")]
        for private, chain, works in ((None, None, False), (pair[1], pair[0], True)):
            credentials = grpc.ssl_channel_credentials(roots, private, chain)
            with grpc.secure_channel(running.grpc, credentials) as channel:
                call = models_pb2_grpc.ModelsServiceStub(channel).ListModels
                if works:
                    assert len(call(models_pb2.ListModelsRequest(), timeout=10).models) == 2
                else:
                    with pytest.raises(grpc.RpcError):
                        call(models_pb2.ListModelsRequest(), timeout=10)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"PUNA_TLS_KEY": ""}, "needs both"), ({"PUNA_TLS_CERTIFICATE": "/nowhere.pem"}, "/nowhere.pem")],
)
def test_bad_certificates_end_the_start(certificates, tmp_path, change, text):
    pem, key = certificates.issue("server")
    own = {"PUNA_TLS_CERTIFICATE": str(pem), "PUNA_TLS_KEY": str(key), "OLLAMA_MODELS": str(tmp_path / "models")}
    own |= {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_GRPC_HOST": "127.0.0.1:0"} | change
    done = subprocess.run([PUNA, "serve"], env=os.environ | own, capture_output=True, text=True, timeout=60)
    assert (done.returncode, text in done.stderr) == (1, True)


def test_a_bridge_passes_keys_on(server, shop, boss, tmp_path):
    own = {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_KEYS": str(tmp_path / "none")}
    command = [PUNA, "rest", "--core", server.grpc]
    with subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE, text=True) as bridge:
        try:
            line = bridge.stdout.readline()
            far = type("Far", (), {"url": "http://" + line.split("http://")[1].strip()})
            assert ask(far, "/api/tags")[0] == 401
            assert ask(far, "/api/tags", Authorization=f"Bearer {shop}")[0] == 200
        finally:
            bridge.terminate()
