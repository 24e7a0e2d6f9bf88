"""No template freezes, exhausts or ends the server, wherever it comes from and whatever it does."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tests.e2e.server import MODELS, command, parents, serving
from tests.hostile.bounds import unharmed

from puna.gguf import reader as gguf
from puna_client.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    generate_pb2,
    generate_pb2_grpc,
    message_pb2,
    models_pb2,
    models_pb2_grpc,
)

SECONDS = 0.4
GO_LIMITED = {
    "a range of numbers": "{{ range 999999999999 }}{{ end }}{{ .Prompt }}",
    "ranges in ranges": "{{ range 99999 }}{{ range 99999 }}{{ end }}{{ end }}{{ .Prompt }}",
    "doubling": "{{ $x := .Prompt }}" + '{{ $x = printf "%s%s%s%s" $x $x $x $x }}' * 40 + "{{ $x }}",
    "much text": "{{ range 99999999 }}" + "x" * 4000 + "{{ end }}{{ .Prompt }}",
    "a large padding in a range": '{{ range 999999 }}{{ printf "%999999d" 1 }}{{ end }}{{ .Prompt }}',
    "many actions": "{{.}}" * 200_000,
    "a long source": "x" * (1 << 20),
}
GO_REFUSED = {
    "deep": "{{" + "(" * 50_000 + "1" + ")" * 50_000 + "}}",
    "deep branches": "{{if 1}}" * 5000,
    "itself": '{{ define "a" }}{{ template "a" . }}{{ template "a" . }}{{ end }}{{ template "a" . }}{{ .Messages }}',
    "a long number": "{{ " + "9" * 100_000 + "e }}",
}
GO_HARMLESS = {
    "a width": '{{ printf "%2000000000d" 1 }}{{ .Prompt }}',
    "a width from an argument": '{{ printf "%*d" 2000000000 1 }}{{ .Prompt }}',
    "a precision": '{{ printf "%.2000000000f" 1.0 }}{{ .Prompt }}',
}
JINJA = {
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"
    ),
    "padding": "{{ '%2000000000d' % 1 }}",
    "filters": "{{ 'x' | center(10 ** 10) }}{{ 'x' | indent(10 ** 10, true) }}{{ 'x'.ljust(10 ** 10) }}",
    "methods": "{{ ('\\t' * 9999).expandtabs(10 ** 9) }}{{ ('a' * 50000).replace('a', 'b' * 50000) }}",
    "a power": "{{ 10 ** (10 ** 8) }}",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    store = tmp_path_factory.mktemp("home") / "models"
    with serving(store, PUNA_TEMPLATE_SECONDS=str(SECONDS), PUNA_TEMPLATE_MEMORY_BYTES=str(128 << 20)) as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        running.upload("native", MODELS / "jinja.gguf")
        running.json("/api/generate", {"model": "scripted", "prompt": "a", "stream": False})
        yield running


def with_template(folder, text):
    """Write a model file whose chat template is another."""
    source = MODELS / "jinja-tools.gguf"
    data, old = source.read_bytes(), gguf.read(source).text("tokenizer.chat_template").encode()
    assert data.count(old) == 1
    assert len(text.encode()) <= len(old)
    path = folder / "hostile.gguf"
    path.write_bytes(data.replace(old, text.encode().ljust(len(old))))
    return path


def generate(server, template, **more):
    body = {"model": "scripted", "prompt": "a", "template": template, "stream": False} | more
    status, _, text = server.ask("/api/generate", body)
    return status, json.loads(text)


def is_limited(status, answer):
    return status == 400 and "template exceeds the limit of" in answer["error"] and "(PUNA_TEMPLATE_" in answer["error"]


def call(method, request):
    """Return the status code of a call, and its text."""
    try:
        answer = method(request, timeout=60)
        for _ in answer if hasattr(answer, "__iter__") else ():
            pass
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def in_a_row_of_threads(work, items):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(work, items))


def test_go_templates_of_requests(server, channel):
    stub = generate_pb2_grpc.GenerateServiceStub(channel)

    def over_grpc(template):
        return call(stub.Generate, generate_pb2.GenerateRequest(model="scripted", text="a", template=template))

    with unharmed(server):
        found = dict(
            zip(GO_LIMITED, in_a_row_of_threads(lambda t: generate(server, t), GO_LIMITED.values()), strict=True)
        )
        assert {name: each for name, each in found.items() if not is_limited(*each)} == {}
        some = ("a range of numbers", "doubling", "many actions")
        for code, text in in_a_row_of_threads(over_grpc, [GO_LIMITED[name] for name in some]):
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "template exceeds the limit of" in text
        for template in GO_REFUSED.values():
            assert generate(server, template)[0] in (400, 500)
            assert over_grpc(template)[0] is grpc.StatusCode.INVALID_ARGUMENT
        for template in GO_HARMLESS.values():
            assert generate(server, template)[0] == 200


def test_a_template_beside_a_suffix(server):
    with unharmed(server):
        fill = "{{ if .Suffix }}{{ .Prompt }}{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}"
        server.json("/api/create", {"model": "fill", "from": "scripted", "template": fill, "stream": False})
        assert is_limited(*generate(server, GO_LIMITED["a range of numbers"], suffix="b", model="fill"))


def test_go_templates_of_models(server, channel):
    """Creating tells of the limits that the source exceeds; the others show when the model is used."""
    stub = models_pb2_grpc.ModelsServiceStub(channel)
    with unharmed(server):
        for name in ("many actions", "a long source"):
            status, _, text = server.ask(
                "/api/create", {"model": "bad", "from": "scripted", "template": GO_LIMITED[name], "stream": False}
            )
            assert (status, b"PUNA_TEMPLATE_BYTES" in text) == (400, True)
            request = models_pb2.CreateModelRequest(name="bad", template=GO_LIMITED[name])
            request.from_model = "scripted"
            code, text = call(stub.CreateModel, request)
            assert (code, "PUNA_TEMPLATE_BYTES" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        dense = "{{.}}" * 4000  # too long for the core, so a worker reads it
        server.json("/api/create", {"model": "dense", "from": "scripted", "template": dense, "stream": False})
        endless = GO_LIMITED["a range of numbers"]
        server.json("/api/create", {"model": "endless", "from": "scripted", "template": endless, "stream": False})
        assert server.json("/api/show", {"model": "endless"})["template"] == endless
        assert {"dense:latest", "endless:latest"} <= {each["name"] for each in server.json("/api/tags")["models"]}
        assert call(stub.ListModels, models_pb2.ListModelsRequest())[0] is grpc.StatusCode.OK
        assert server.json("/api/generate", {"model": "endless", "stream": False})["done_reason"] == "load"
        said = {"messages": [{"role": "user", "content": "a"}], "stream": False}
        status, _, text = server.ask("/api/chat", {"model": "endless", **said})
        assert is_limited(status, json.loads(text))


@pytest.mark.parametrize("name", JINJA)
def test_jinja_templates_of_models(server, channel, tmp_path, name):
    server.upload(name.replace(" ", "-"), with_template(tmp_path, JINJA[name]))
    model = name.replace(" ", "-")
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    with unharmed(server):
        assert server.json("/api/show", {"model": model})["template"].startswith(JINJA[name])
        assert model + ":latest" in {each["name"] for each in server.json("/api/tags")["models"]}
        assert server.json("/api/chat", {"model": model, "messages": [], "stream": False})["done_reason"] == "load"
        said = {"messages": [{"role": "user", "content": "a"}], "stream": False}
        request = chat_pb2.ChatRequest(
            model=model, messages=[message_pb2.ChatMessage(role="user", content="a")], render_only=True
        )
        with ThreadPoolExecutor(3) as pool:
            chatting = pool.submit(server.ask, "/api/chat", {"model": model, **said})
            generating = pool.submit(generate, server, "", model=model)
            code, text = call(stub.Chat, request)
        status, _, answer = chatting.result()
        assert is_limited(status, json.loads(answer)), answer
        assert is_limited(*generating.result())
        assert (code, "PUNA_TEMPLATE_" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_others_are_answered_meanwhile(server):
    """Four that never end, and a client of another model with a template of its own."""
    said = {"model": "native", "messages": [{"role": "user", "content": "a"}], "stream": False}
    server.json("/api/chat", said)
    with unharmed(server), ThreadPoolExecutor(4) as pool:
        endless = [pool.submit(generate, server, f"{{{{ range 99999999999{n} }}}}{{{{ end }}}}") for n in range(4)]
        time.sleep(0.2)
        answered = 0
        while not all(each.done() for each in endless):
            assert server.json("/api/chat", said)["message"]["content"]
            answered += 1
        assert answered >= 2
        assert all(is_limited(*each.result()) for each in endless)


def test_a_client_that_leaves_ends_the_rendering(server):
    def working():
        family = [pid for pid, parent in parents().items() if parent == server.process.pid]
        return [pid for pid in family if b"puna.sandbox" in command(pid)]

    body = {"model": "scripted", "prompt": "a", "template": GO_LIMITED["a range of numbers"], "stream": False}
    with unharmed(server):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                server.ask("/api/generate", body, timeout=0.1)
        time.sleep(1)
    assert len(working()) <= 2
