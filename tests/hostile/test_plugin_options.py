"""No request chooses what code the server loads or which of its files it opens."""

import hashlib
import json
import os
import urllib.request
from pathlib import Path

import grpc
import pytest
from tests.e2e.server import MODELS, serving
from tests.hostile.bounds import unharmed

from puna.plugins import Registry
from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    embed_pb2,
    embed_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    message_pb2,
    models_pb2,
    models_pb2_grpc,
    options_pb2,
    rank_pb2,
    rank_pb2_grpc,
    tokenize_pb2,
    tokenize_pb2_grpc,
)

NAMES = (
    *("lib", "library", "LIB", "lib ", "path", "model", "model_path_or_repo_id", "model_file", "model_type", "hf"),
    *("config", "local_files_only", "revision", "gpu_layers", "kv_overrides", "rpc", "rpc_servers", "devices"),
    *(
        "lora",
        "mmproj",
        "log_file",
        "grammar_file",
        "prompt_cache",
        "slot_save_path",
        "tensor_buft_overrides",
        "__class__",
    ),
)


@pytest.fixture(scope="module")
def blob(server):
    """The path of a blob that a stranger uploaded: what the loader would be pointed at."""
    data = b"\x7fELF" + bytes(range(256))
    digest = hashlib.sha256(data).hexdigest()
    assert server.ask(f"/api/blobs/sha256:{digest}", method="HEAD")[0] == 404
    request = urllib.request.Request(f"{server.url}/api/blobs/sha256:{digest}", data, method="POST")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201
    return str(server.store / "blobs" / f"sha256-{digest}")


@pytest.fixture(scope="module")
def models(server, blob):
    """A model for every installed backend, by the backend's name."""
    made = {}
    with grpc.insecure_channel(server.grpc) as channel:
        stub = models_pb2_grpc.ModelsServiceStub(channel)
        for each in Registry.discover().describe():
            if "gguf" in each.manifest.formats:
                source = {"from_model": "scripted"}
            elif each.manifest.formats:
                file = models_pb2.FileBlob(name="model.bin", digest=f"sha256:{Path(blob).name.removeprefix('sha256-')}")
                source = {"files": [file], "has_files": True, "format": each.manifest.formats[0]}
            else:
                source = {"upstream": "none/none"}
            request = models_pb2.CreateModelRequest(name=f"for-{each.name}", backend=each.name, **source)
            list(stub.CreateModel(request))
            made[each.name] = f"for-{each.name}"
    assert {"llama_cpp", "ctranslate2", "openai"} <= made.keys()
    return made


def calls(channel, model, options):
    """Yield every call that takes the options of a request."""
    models = models_pb2_grpc.ModelsServiceStub(channel)
    yield lambda: models.LoadModel(models_pb2.LoadModelRequest(name=model, options=options))
    generate = generate_pb2_grpc.GenerateServiceStub(channel)
    text = generate_pb2.GenerateRequest(model=model, text="Hi", options=options)
    yield lambda: generate.Generate(text)
    yield lambda: list(generate.StreamGenerate(text))
    chat = chat_pb2_grpc.ChatServiceStub(channel)
    messages = [message_pb2.ChatMessage(role="user", content="Hi")]
    said = chat_pb2.ChatRequest(model=model, messages=messages, options=options)
    yield lambda: chat.Chat(said)
    yield lambda: list(chat.StreamChat(said))
    embed = embed_pb2_grpc.EmbedServiceStub(channel)
    yield lambda: embed.Embed(embed_pb2.EmbedRequest(model=model, inputs=["Hi"], options=options))
    rank = rank_pb2_grpc.RankServiceStub(channel)
    yield lambda: rank.Rerank(rank_pb2.RerankRequest(model=model, query="a", documents=["b"], options=options))
    tokens = tokenize_pb2_grpc.TokenizeServiceStub(channel)
    yield lambda: tokens.Tokenize(tokenize_pb2.TokenizeRequest(model=model, text="Hi", options=options))
    yield lambda: tokens.Detokenize(tokenize_pb2.DetokenizeRequest(model=model, token_ids=[1], options=options))


def refused(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return caught.value.details()


def test_every_call_refuses_a_library(server, channel, models, blob):
    with unharmed(server):
        for backend, model in models.items():
            options = options_pb2.RequestOptions(backend_options_json={backend: json.dumps({"lib": blob})})
            for call in calls(channel, model, options):
                assert "option 'lib'" in refused(call)
    assert server.hosts() == []


def test_no_backend_takes_a_path_under_any_name(server, channel, models, blob):
    stub = models_pb2_grpc.ModelsServiceStub(channel)
    for backend, model in models.items():
        for name in NAMES:
            for value in (blob, [blob], {name: blob}, 1, None):
                options = options_pb2.RequestOptions(backend_options_json={backend: json.dumps({name: value})})
                request = models_pb2.LoadModelRequest(name=model, options=options)
                assert repr(name) in refused(lambda request=request: stub.LoadModel(request))
    assert server.hosts() == []


def test_a_model_cannot_bring_options_of_its_backend(server, blob):
    """A model's parameters are the options of requests; its configuration has no place for a backend's own."""
    lib = {"lib": blob, "backend_options": {"llama_cpp": {"lib": blob}}}
    server.json("/api/create", {"model": "laden", "from": "scripted", "parameters": lib, "stream": False})
    body = {"model": "laden", "prompt": "Hi", "stream": False, "options": lib | {"num_predict": 2}, **lib}
    assert server.json("/api/generate", body)["done"]
    (host,) = server.hosts()
    assert blob not in Path(f"/proc/{host}/maps").read_text()
    server.json("/api/generate", {"model": "laden", "keep_alive": 0})


@pytest.mark.parametrize("field", ["files", "adapters"])
@pytest.mark.parametrize("digest", ["/etc/passwd", "../../../etc/passwd", "sha256:../../../../etc/passwd", "sha256:\0"])
def test_create_takes_digests_and_no_paths(server, field, digest):
    body = {"model": "x", "stream": False, "files": {"a.gguf": digest}}
    if field == "adapters":
        body = {"model": "x", "stream": False, "from": "scripted", "adapters": {"a.gguf": digest}}
    status, _, answer = server.ask("/api/create", body)
    assert (status, json.loads(answer)) in (
        (400, {"error": "invalid digest format"}),
        (500, {"error": "invalid digest format"}),
    )


@pytest.mark.parametrize("base", ["/etc/passwd", "../scripted", "~/x.gguf", "file:///etc/passwd", "./models/a.gguf"])
def test_create_takes_the_names_of_models_and_no_paths(server, base):
    status, _, answer = server.ask("/api/create", {"model": "x", "from": base, "stream": False})
    assert status in (400, 404, 500)
    assert b"root:" not in answer


def test_hosts_inherit_no_secrets(tmp_path):
    secrets = {
        "PUNA_REGISTRY_PASSWORD": "hidden-1",
        "PUNA_REGISTRY_TOKEN": "hidden-2",
        "DOCKER_AUTH_CONFIG": '{"auths":{"hidden-3":{}}}',
        "AWS_SECRET_ACCESS_KEY": "hidden-4",
        "DATABASE_URL": "postgres://u:hidden-5@h/d",
    }
    with serving(tmp_path / "models", **secrets) as server:
        server.upload("scripted", MODELS / "scripted.gguf")
        server.json(
            "/api/generate", {"model": "scripted", "prompt": "Hi", "options": {"num_predict": 1}, "stream": False}
        )
        (host,) = server.hosts()
        assert "hidden-" not in Path(f"/proc/{host}/environ").read_text()
        assert os.environ["PATH"] in Path(f"/proc/{host}/environ").read_text()
