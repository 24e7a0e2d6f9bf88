"""The command line against a running server, in a pipe as scripts use it."""

import json
import os
import re
import subprocess

import pytest
from tests.e2e.server import MODELS, PUNA


@pytest.fixture
def puna(server):
    def run(*words, given="", status=0):
        done = subprocess.run(
            [PUNA, *words],
            env=os.environ | {"PUNA_GRPC_HOST": server.grpc, "OLLAMA_NOHISTORY": "1"},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout

    return run


def test_list(puna):
    lines = puna("list").splitlines()
    assert lines[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    (line,) = [each for each in lines if each.startswith("scripted:latest ")]
    assert re.fullmatch(r"scripted:latest +[0-9a-f]{12} +\d+ KB +.* ago +", line)
    assert len(puna("list", "EMB").splitlines()) == 2


def test_list_for_scripts(puna):
    assert "scripted:latest" in [model["name"] for model in json.loads(puna("list", "--json"))]


def test_show(puna):
    text = puna("show", "llamita")
    assert "  Model\n    architecture        llama" in text
    assert "  Capabilities\n    completion" in text
    assert puna("show", "llamita", "--template").strip()
    assert "only one of" in puna("show", "llamita", "--template", "--license", status=1)
    assert puna("show", "nowhere", status=1) == "Error: model 'nowhere:latest' not found\n"


def test_run_answers_a_prompt_from_arguments_or_standard_input(puna):
    assert "blue" in puna("run", "llamita", "Why is the sky blue?", "--think=false")
    assert "blue" in puna("run", "llamita", "--think=false", given="Why is the sky blue?\n")


def test_run_shows_metrics(puna, server):
    done = subprocess.run(
        [PUNA, "run", "llamita", "Hello!", "--verbose"],
        env=os.environ | {"PUNA_GRPC_HOST": server.grpc},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert re.search(r"^eval rate: +[\d.]+ tokens/s$", done.stderr, re.MULTILINE)


def test_without_a_prompt_and_a_terminal_the_model_is_loaded(puna, server):
    puna("stop", "scripted")
    assert puna("run", "scripted") == ""
    assert "scripted:latest" in puna("ps")


def test_options_between_model_and_prompt(puna):
    assert "blue" in puna("run", "llamita", "--think=false", "--keepalive", "10m", "Why is the sky blue?")


@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_text_that_is_no_utf_8(server, environment):
    def run(*words, given=b""):
        done = subprocess.run(
            [PUNA, "run", "llamita", "--think=false", *words],
            env=os.environ | {"PUNA_GRPC_HOST": server.grpc} | environment,
            input=given,
            capture_output=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.strip()

    run(given=b"caf\xe9")
    run(b"caf\xe9")
    run("Repeat: \u2713 é".encode())


def test_an_embedding_model_prints_its_vector(puna):
    assert len(json.loads(puna("run", "embedder", "hello world"))) == 32
    assert len(json.loads(puna("run", "embedder", "--dimensions", "8", "hello world"))) == 8
    assert "exceeds" in puna("run", "embedder", "--truncate=false", "hello " * 9999, status=1)


def test_ps_and_stop(puna, server):
    server.json("/api/generate", {"model": "scripted", "prompt": ""})
    assert re.search(r"^scripted:latest .* 100% CPU ", puna("ps"), re.MULTILINE)
    puna("stop", "scripted")
    assert "scripted:latest" not in puna("ps")
    assert puna("stop", "nowhere", status=1) == 'Error: couldn\'t find model "nowhere" to stop\n'


def test_create_copy_remove(puna, tmp_path):
    (tmp_path / "Modelfile").write_text(
        f"FROM {MODELS / 'scripted.gguf'}\nPARAMETER temperature 0\nSYSTEM Be brief.\nTEMPLATE {{{{ .Prompt }}}}\n"
    )
    puna("create", "made", "-f", str(tmp_path / "Modelfile"))
    assert puna("show", "made", "--system") == "Be brief.\n"
    assert puna("show", "made", "--parameters").split() == ["temperature", "0"]
    assert puna("cp", "made", "again") == "copied 'made' to 'again'\n"
    (tmp_path / "notes.txt").write_text("no model")
    assert "notes.txt is no GGUF file" in puna("create", "made", "--gguf", str(tmp_path / "notes.txt"), status=1)
    assert "known types are" in puna("create", "x", "--from", "made", "-q", "Q99", status=1)
    assert puna("rm", "made", "again") == "deleted 'made'\ndeleted 'again'\n"


def test_plugins_lists_our_backends(puna):
    lines = puna("plugins").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["ctranslate2", "llama_cpp", "openai"]


def test_without_a_server_the_error_says_so(server):
    done = subprocess.run(
        [PUNA, "list"],
        env=os.environ | {"PUNA_GRPC_HOST": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == "Error: could not connect to the server at 127.0.0.1:1, run 'puna serve' to start it\n"
