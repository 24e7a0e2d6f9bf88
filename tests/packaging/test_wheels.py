"""The wheels of `make wheel`, installed into a clean environment: they serve, and choose ggml's variant at run time."""

import json
import os
import subprocess
import urllib.request
import zipfile
from pathlib import Path

import grpc
import pytest
from tests.e2e.server import serving
from tests.packaging.conftest import CLEAN, install

from puna_client.v1 import chat_pb2, chat_pb2_grpc, message_pb2, options_pb2

QUESTION = "Why is the sky blue?"
VNNI = "avx512_vnni" in Path("/proc/cpuinfo").read_text()


@pytest.fixture(scope="module")
def wheels():
    folder = Path(os.environ["PUNA_WHEELS"])
    (puna,) = folder.glob("puna-*.whl")
    (client,) = folder.glob("puna_client-*.whl")
    (llama,) = folder.glob("llama_cpp_python-*.whl")
    return puna.resolve(), llama.resolve(), client.resolve()


@pytest.fixture(scope="module")
def programs(wheels, tmp_path_factory):
    puna, llama, client = wheels
    return install(tmp_path_factory.mktemp("installed") / "venv", f"puna[llama-cpp] @ {puna.as_uri()}", llama, client)


@pytest.fixture(scope="module")
def server(programs, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home") / "models", programs / "puna", **CLEAN) as running:
        yield running


def test_the_wheel_has_a_library_for_each_generation_of_processors_and_no_file_twice(wheels):
    with zipfile.ZipFile(wheels[1]) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"llama_cpp", "llama_cpp_python-0.3.36.dist-info"}
    variants = {Path(name).name for name in names if "/libggml-cpu" in name}
    assert {f"libggml-cpu-{each}.so" for each in ("x64", "sse42", "haswell", "skylakex", "icelake", "zen4")} <= variants
    assert all(name.endswith(".so") for name in variants)
    assert [name for name in names if "llama-common" in name] == []


def test_rest_and_grpc_answer(server):
    assert server.greeting.startswith("Puna is ready: ")
    asked = {"model": "llamita", "messages": [{"role": "user", "content": QUESTION}], "think": False}
    answer = server.json("/api/chat", asked | {"stream": False, "options": {"temperature": 0}})
    assert "blue" in answer["message"]["content"]
    with grpc.insecure_channel(server.grpc) as channel:
        request = chat_pb2.ChatRequest(
            model="llamita",
            messages=[message_pb2.ChatMessage(role="user", content=QUESTION)],
            options=options_pb2.RequestOptions(
                sampling=options_pb2.SamplingOptions(temperature=0), thinking=options_pb2.THINKING_LEVEL_OFF
            ),
        )
        told = chat_pb2_grpc.ChatServiceStub(channel).Chat(request, timeout=60)
    assert told.message.content == answer["message"]["content"]


def test_a_host_loads_one_variant_out_of_the_environment(server, programs):
    server.json("/api/generate", {"model": "llamita"})
    (host,) = server.hosts()
    maps = Path(f"/proc/{host}/maps").read_text().splitlines()
    (variant,) = {line.split()[-1] for line in maps if "/libggml-cpu" in line}
    assert Path(variant).is_relative_to(programs.parent)
    assert Path(variant).name != "libggml-cpu-x64.so"  # every processor of the last fifteen years can do better


def kernels(programs):
    """Ask whether the kernels can be used."""
    command = [programs / "python", "-m", "puna_ggml_kernels"]
    return subprocess.run(command, env=os.environ | CLEAN, capture_output=True, text=True, timeout=60, check=False)


def test_the_kernels_take_part_where_the_processor_has_avx_512(programs):
    done = kernels(programs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("runs with Puna's kernels" in done.stdout) is VNNI, done.stdout


def test_an_old_processor_runs_without_the_kernels(wheels, tmp_path):
    """The environment has only the variant for any x86-64 processor left, as ggml chooses it on an old one."""
    programs = install(tmp_path / "venv", f"puna[llama-cpp] @ {wheels[0].as_uri()}", wheels[1])
    for variant in programs.parent.glob("lib/python3*/site-packages/llama_cpp/lib/libggml-cpu-*.so"):
        if variant.name != "libggml-cpu-x64.so":
            variant.unlink()
    with serving(tmp_path / "models", programs / "puna", **CLEAN) as server:
        asked = {"model": "llamita", "prompt": QUESTION, "think": False, "stream": False, "options": {"temperature": 0}}
        assert "blue" in server.json("/api/generate", asked)["response"]
    assert "runs without Puna's kernels" in kernels(programs).stdout


def test_quantizing_works(server):
    """It runs in a program of its own, which does not load the backend that models run on."""
    body = json.dumps({"model": "small", "from": "llamita", "quantize": "q8_0", "stream": False}).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + "/api/create", body), timeout=120) as answer:
        assert json.loads(answer.read()) == {"status": "success"}
