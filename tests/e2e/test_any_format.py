"""Models of other formats, and models without files, from creation to removal: over REST, gRPC and the command line.

Their backends run in real hosts, and answer every prompt with how the model was loaded.
"""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import grpc
import pytest
from tests.e2e.server import MODELS, PUNA, serving, wait_until

from puna_client.v1 import generate_pb2, generate_pb2_grpc, models_pb2, models_pb2_grpc

PLUGINS = Path(__file__).parents[1] / "plugins"
FILES = {"config.json": "{}", "sub/model.bin": "weights", "sub/empty": ""}
SHELF = ("--backend", "shelf", "--format", "shelf", "--folder", "FOLDER")
WITH_PLUGINS = os.pathsep.join(filter(None, (str(PLUGINS / "shelf"), os.environ.get("PYTHONPATH"))))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    store = tmp_path_factory.mktemp("any-format") / "models"
    runtime = tmp_path_factory.mktemp("run", numbered=True)
    with serving(store, PYTHONPATH=WITH_PLUGINS, XDG_RUNTIME_DIR=str(runtime)) as running:
        running.runtime = runtime
        running.upload("gguf", MODELS / "scripted.gguf")
        yield running


@pytest.fixture
def puna(server):
    def run(*words, status=0, cwd=None):
        done = subprocess.run(
            [PUNA, *map(str, words)],
            # The server's Unix socket lies in the runtime folder.
            env=os.environ | {"PUNA_GRPC_HOST": server.grpc, "XDG_RUNTIME_DIR": str(server.runtime)},
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd,
        )
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout

    return run


@pytest.fixture
def told(server):
    def ask(name, **fields):
        answer = server.json("/api/generate", {"model": name, "prompt": "hi", "raw": True, "stream": False} | fields)
        return json.loads(answer["response"])

    return ask


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "folder" / ".git").mkdir()
    (tmp_path / "folder" / ".git" / "HEAD").write_text("no file of the model")
    return tmp_path / "folder"


@pytest.fixture
def grpc_channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def test_a_folder_is_loaded_under_its_names(puna, told, folder, server):
    puna("create", "f", "--backend", "shelf", "--format", "shelf", "--folder", folder, "--option", "level=3")
    found = told("f", options={"temperature": 0})
    assert (found["name"], found["format"], found["upstream"]) == ("f:latest", "shelf", "")
    assert (found["files"], found["in_folder"]) == (FILES, sorted(FILES))
    assert found["options"] == {"level": 3}
    assert found["path"] == found["folder"]
    assert Path(found["folder"]).is_relative_to(server.runtime)
    puna("stop", "f")
    wait_until(lambda: not Path(found["folder"]).exists())


def test_a_file_is_loaded_by_its_path(puna, told, folder):
    puna("create", "one", "--backend", "shelf", "--format", "crate", "--file", folder / "sub" / "model.bin")
    found = told("one")
    assert (found["format"], found["files"]) == ("crate", {"model.bin": "weights"})
    assert found["path"] == f"{found['folder']}/model.bin"


def test_a_model_without_a_file(puna, told, server):
    puna("create", "up", "--backend", "away", "--upstream", "big/model:v1", "--option", "region=eu")
    found = told("up")
    assert (found["upstream"], found["options"], found["files"]) == ("big/model:v1", {"region": "eu"}, {})
    assert (found["path"], found["folder"], found["format"]) == ("", "", "")
    shown = server.json("/api/show", {"model": "up", "verbose": True})
    assert (shown["backend"], shown["upstream"], shown["backend_options"]) == ("away", "big/model:v1", {"region": "eu"})
    assert (shown["model_info"], shown["details"]["format"]) == ({}, "")
    for path, body in (
        ("/api/embed", {"input": "hello"}),
        ("/api/embed", {"input": "x" * 99999}),
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}], "stream": False}),
        ("/api/generate", {"prompt": "", "stream": False}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/api/create", {"from": "up", "quantize": "q8_0", "stream": False}),
        ("/api/create", {"from": "up", "adapters": {"a.gguf": "sha256:" + "1" * 64}, "stream": False}),
    ):
        _, _, text = server.ask(path, {"model": "up"} | body)
        assert b"magic" not in text
        assert b"GGUF header" not in text


def test_a_backend_that_needs_nothing(puna, told):
    puna("create", "nothing", "--backend", "away")
    assert told("nothing")["upstream"] == ""


def test_rest_takes_the_same_fields(server, told):
    files = {name: server.blob(text.encode()) for name, text in FILES.items()}
    made = {"model": "rest", "backend": "shelf", "format": "shelf", "files": files, "backend_options": {"level": 2}}
    server.json("/api/create", made | {"stream": False, "system": "Be brief."})
    assert (told("rest")["files"], told("rest")["options"]) == (FILES, {"level": 2})
    shown = server.json("/api/show", {"model": "rest"})
    assert (shown["files"], shown["backend_format"], shown["details"]["format"]) == (files, "shelf", "shelf")
    assert shown["system"] == "Be brief."
    (tag,) = [each for each in server.json("/api/tags")["models"] if each["name"] == "rest:latest"]
    assert (tag["backend"], tag["details"]["format"]) == ("shelf", "shelf")
    (row,) = [each for each in server.json("/api/ps")["models"] if each["name"] == "rest:latest"]
    assert row["backend"] == "shelf"
    (gguf,) = [each for each in server.json("/api/tags")["models"] if each["name"] == "gguf:latest"]
    assert "backend" not in gguf


def test_grpc_takes_the_same_fields(server, grpc_channel):
    models = models_pb2_grpc.ModelsServiceStub(grpc_channel)
    request = models_pb2.CreateModelRequest(
        name="rpc",
        backend="shelf",
        format="crate",
        files=[models_pb2.FileBlob(name=name, digest=server.blob(text.encode())) for name, text in FILES.items()],
        backend_options_json='{"voice":"deep"}',
    )
    assert [*models.CreateModel(request, timeout=10)][-1].model.name == f"{request.name}:latest"
    shown = models.GetModel(models_pb2.GetModelRequest(name="rpc"), timeout=10)
    assert (shown.model.backend, shown.model.serving_backend, shown.backend_format) == ("shelf", "shelf", "crate")
    assert ([each.name for each in shown.files], shown.backend_options_json) == (sorted(FILES), '{"voice":"deep"}')
    generate = generate_pb2_grpc.GenerateServiceStub(grpc_channel)
    answer = generate.Generate(generate_pb2.GenerateRequest(model="rpc", text="hi", raw=True), timeout=60)
    assert json.loads(answer.text)["files"] == FILES
    loaded = models.ListLoadedModels(models_pb2.ListLoadedModelsRequest(), timeout=10).models
    assert [each.backend for each in loaded if each.model.name == "rpc:latest"] == ["shelf"]


def test_a_modelfile_makes_the_model_and_makes_it_again(puna, told, folder, tmp_path):
    (folder.parent / "Modelfile").write_text(
        "FROM ./folder\nBACKEND shelf\nBACKEND_FORMAT shelf\nBACKEND_OPTION level 4\n"
        'BACKEND_OPTION voice """deep\nand slow"""\nCAPABILITY completion\nSYSTEM Be brief.\nPARAMETER temperature 0\n'
    )
    puna("create", "mine", cwd=tmp_path)
    assert told("mine")["options"] == {"level": 4, "voice": "deep\nand slow"}
    (tmp_path / "Again").write_text(puna("show", "--modelfile", "mine"))
    puna("create", "again", "-f", tmp_path / "Again")
    assert told("again")["files"] == FILES
    assert told("again")["options"] == told("mine")["options"]
    again, mine = (puna("show", "--modelfile", name) for name in ("again", "mine"))
    assert again.replace("again:latest", "mine:latest") == mine
    puna("create", "louder", "--backend", "shelf", "--option", "level=9", "-f", tmp_path / "Again")
    assert told("louder")["options"]["level"] == 9
    (tmp_path / "Up").write_text("UPSTREAM big\nBACKEND away\nBACKEND_OPTION region eu\n")
    puna("create", "file-up", "-f", tmp_path / "Up")
    assert (told("file-up")["upstream"], told("file-up")["options"]) == ("big", {"region": "eu"})


def test_the_commands_name_the_backend(puna, told, folder):
    puna("create", "named", "--backend", "shelf", "--format", "shelf", "--folder", folder, "--option", "level=1")
    puna("create", "named-up", "--backend", "away", "--upstream", "big")
    told("named")
    listed = puna("list")
    assert listed.splitlines()[0].split() == ["NAME", "ID", "SIZE", "MODIFIED", "BACKEND"]
    assert re.search(r"^named:latest .* shelf *$", listed, re.MULTILINE)
    assert re.search(r"^named-up:latest +\w+ +- .* away *$", listed, re.MULTILINE)
    assert re.search(r"^gguf:latest .* llama_cpp *$", listed, re.MULTILINE)
    assert re.search(r"^named:latest .* shelf *$", puna("ps"), re.MULTILINE)
    shown = puna("show", "named")
    assert re.search(r"^ +backend +shelf *$", shown, re.MULTILINE)
    assert re.search(r"^ +level +1 *$", shown, re.MULTILINE)
    assert re.search(r"^ +sub/model\.bin +[0-9a-f]{12} *$", shown, re.MULTILINE)
    assert re.search(r"^ +upstream +big *$", puna("show", "named-up"), re.MULTILINE)


def test_copies_removals_the_doctor_and_imports_know_such_models(puna, told, folder, server, tmp_path):
    puna("create", "kept", "--backend", "shelf", "--format", "shelf", "--folder", folder)
    puna("create", "kept-up", "--backend", "away", "--upstream", "big")
    for name in ("kept", "kept-up"):
        puna("cp", name, f"{name}-copy")
        puna("rm", name)
    assert told("kept-copy")["files"] == FILES
    assert told("kept-up-copy")["upstream"] == "big"
    assert "all is well" in puna("doctor")

    def checked():
        command = [PUNA, "doctor"]
        return subprocess.run(
            command, env=os.environ | {"PUNA_GRPC_HOST": server.grpc}, capture_output=True, text=True, timeout=60
        ).stdout

    digest = hashlib.sha256(b"weights").hexdigest()
    blob = server.store / "blobs" / f"sha256-{digest}"
    puna("stop", "kept-copy")
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    try:
        status, _, text = server.ask("/api/generate", {"model": "kept-copy", "prompt": "hi"})
        assert (status, digest[:12].encode() in text) == (500, True)
        found = checked()
        assert f"FAULT    damaged blob: blob {blob}" in found
        assert re.search("^ +of .*kept-copy:latest", found, re.MULTILINE)
    finally:
        blob.write_bytes(b"weights")
    assert "is not installed" in puna(
        "import", MODELS / "scripted.gguf", "--backend", "nosuch", "--name", "i", status=1
    )


def test_a_new_model_of_another_inherits(puna, told, folder):
    puna("create", "base", "--backend", "shelf", "--format", "shelf", "--folder", folder, "--option", "level=1")
    puna("create", "child", "--from", "base", "--option", "voice=deep", "--backend", "shelf")
    assert (told("child")["files"], told("child")["options"]) == (FILES, {"level": 1, "voice": "deep"})


def test_the_chat_template_of_a_folder_makes_the_prompts(puna, server, folder):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    puna("create", "talker", "--backend", "shelf", "--format", "shelf", "--folder", folder, "--system", "Hi.")
    body = {"model": "talker", "messages": [{"role": "user", "content": "Who?"}], "stream": False}
    content = server.json("/api/chat", body)["message"]["content"]
    assert json.loads(content)["prompt"] == "<system>Hi.<user>Who?"


def test_commands_talk_to_a_model_without_a_file(puna):
    puna("create", "talk-up", "--backend", "away", "--upstream", "talker")
    assert json.loads(puna("run", "talk-up", "Hello"))["upstream"] == "talker"
    assert "talk-up:latest" in puna("ps")


def test_files_are_imported_where_they_are(puna, told, folder):
    (folder / "mine.bin").write_text(str(folder))  # no blob has these bytes yet
    puna("import", folder, "--name", "there", "--backend", "shelf", "--format", "shelf")
    assert told("there")["files"] == FILES | {"mine.bin": str(folder)}
    assert "hard link" in puna("show", "there")
    assert "is not installed" in puna("import", folder, "--backend", "nosuch", status=1)
    assert "serves the formats shelf, crate: name one" in puna("import", folder, "--backend", "shelf", status=1)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--backend", "nosuch", "--upstream", "x"], r"backend 'nosuch' is not installed \(installed: .*shelf"),
        (["--backend", "shelf", "--folder", "FOLDER"], r"backend 'shelf' serves the formats shelf, crate: name one"),
        (["--backend", "shelf", "--format", "onnx", "--folder", "FOLDER"],
         r"backend 'shelf' does not serve format 'onnx'"),
        ([*SHELF, "--option", "lvl=1"], r"has no option 'lvl'"),
        ([*SHELF, "--option", "level=99"], r"'level'.* between 0"),
        ([*SHELF, "--option", "level"], r"NAME=VALUE"),
        (["--backend", "away", "--upstream", "x", "--capability", "flying"], r"has no capability 'flying'"),
        (["--backend", "away", "--folder", "FOLDER"], r"backend 'away' takes no files"),
        (["--backend", "shelf", "--upstream", "x"], r"backend 'shelf' serves files and has no upstream"),
        (["--backend", "llama_cpp", "--upstream", "x"], r"serves files and has no upstream"),
        (["--format", "onnx", "--folder", "FOLDER"], r"no installed backend serves models of format 'onnx'"),
        (["--backend", "shelf", "--folder", "NOWHERE"], r"no such directory"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_at_the_creation(puna, folder, words, text):
    words = [{"FOLDER": str(folder), "NOWHERE": "/nowhere/at/all"}.get(each, each) for each in words]
    assert re.search(text, puna("create", "bad", *words, status=1))
    assert "bad:latest" not in puna("list")


def test_a_request_may_set_only_the_options_of_requests(puna, server, folder):
    puna("create", "opts", "--backend", "shelf", "--format", "shelf", "--folder", folder, "--option", "voice=deep")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = generate_pb2_grpc.GenerateServiceStub(channel)

        def ask(text):
            request = generate_pb2.GenerateRequest(model="opts", text="hi", raw=True)
            request.options.backend_options_json["shelf"] = text
            return json.loads(stub.Generate(request, timeout=60).text)["options"]

        assert ask('{"level": 5}') == {"level": 5, "voice": "deep"}
        with pytest.raises(grpc.RpcError):
            ask('{"voice": "loud"}')
