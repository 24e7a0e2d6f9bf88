"""puna-client as a wheel in a clean environment: both clients work there, and nothing of the server is installed."""

import json
import os
import subprocess
import sys

import pytest
from tests.e2e.server import serving
from tests.packaging.conftest import CLEAN, install, uv

SCRIPT = """
import asyncio, json, sys
import puna_client

async def used(address):
    async with puna_client.AsyncClient(address) as client:
        texts = [delta.text async for delta in client.chat("llamita", "Why is the sky blue?")]
        embeddings = await client.embed("llamita-embed", ["one", "two"])
        return "".join(texts), [len(each) for each in embeddings.vectors]

with puna_client.Client(sys.argv[1]) as client:
    models = [each.name for each in client.list_models()]
    try:
        client.chat("nowhere", "Hi").result()
    except puna_client.ModelNotFoundError as error:
        reason = error.reason
text, lengths = asyncio.run(used(sys.argv[1]))
print(json.dumps([models, reason, text, lengths]))
"""
TYPED = """
from array import array
import puna_client
client = puna_client.Client("localhost:11435")
answer: puna_client.Answer = client.chat("llamita", "Hi").result()
vectors: list[array[float]] = client.embed("llamita-embed", "Hi").vectors
client.chat("llamita", 1)  # type: ignore[arg-type]
client.get_model()  # type: ignore[call-arg]
"""


@pytest.fixture(scope="module", params=["highest", "lowest"])
def programs(client_wheel, tmp_path_factory, request):
    """The programs of an environment with the newest, or with the oldest versions that the client takes."""
    return install(tmp_path_factory.mktemp("client") / "venv", "--resolution", request.param, client_wheel)


def test_both_clients_work(programs, tmp_path):
    with serving(tmp_path / "models") as server:
        done = subprocess.run(
            [programs / "python", "-W", "error", "-c", SCRIPT, server.grpc],
            env=os.environ | CLEAN,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    models, reason, text, lengths = json.loads(done.stdout)
    assert {"llamita:latest", "llamita-embed:latest"} <= set(models)
    assert reason == "MODEL_NOT_FOUND"
    assert "blue" in text
    assert lengths == [128, 128]


def test_nothing_else_is_installed(programs):
    listed = json.loads(uv("pip", "list", "--quiet", "--format", "json", "--python", programs / "python"))
    assert {each["name"] for each in listed} - {"typing-extensions"} == {"puna-client", "grpcio", "protobuf"}


def test_it_is_typed(programs, tmp_path):
    (tmp_path / "typed.py").write_text(TYPED)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", programs / "python", "typed.py"]
    done = subprocess.run(mypy, cwd=tmp_path, env=os.environ | CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
