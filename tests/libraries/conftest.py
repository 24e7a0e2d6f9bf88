"""A server for real clients, and the environments that these run in: heavy, and not the one of the other tests."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.server import MODELS, serving
from tests.libraries.models import TEMPLATES
from tests.uv import UV

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Nothing leaves this machine: no price lists, no traces, no proxies, no version checks.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LANGSMITH_TRACING": "false",
    "HF_HUB_OFFLINE": "1",
    "NO_PROXY": "127.0.0.1",
    "NO_UPDATE_NOTIFIER": "1",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server on a new store: llamita is in it, and the scripted models join it under the names of their skills."""
    # Threads that wait in a loop for each other would take whole seconds where the clients want the cores too.
    with serving(tmp_path_factory.mktemp("home") / "models", OMP_WAIT_POLICY="passive") as running:
        running.upload("scripted", MODELS / "scripted.gguf", template="{{ .Prompt }}")
        running.upload("embedder", MODELS / "embedder.gguf")
        for name, template in TEMPLATES.items():
            running.json("/api/create", {"model": name, "from": "scripted", "template": template, "stream": False})
        yield running


@pytest.fixture(scope="session")
def clients_python():
    """The Python of the environment `clients`, installed from uv.lock if it is not there yet."""
    home = Path(sys.prefix) / "clients"
    subprocess.run(
        [UV, "sync", "--frozen", "--quiet", "--only-group", "clients", "--python", sys.executable],
        cwd=ROOT,
        env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(home)},
        check=True,
        timeout=300,
    )
    return home / "bin/python"


@pytest.fixture(scope="session")
def node(tmp_path_factory, clients_python):
    """The node of the environment `clients`, and a folder with the scripts for it and their packages."""
    binaries = clients_python.parent
    home = tmp_path_factory.mktemp("clients") / "node"
    shutil.copytree(HERE / "node", home, ignore=shutil.ignore_patterns("node_modules"))
    command = [binaries / "npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    environment = os.environ | QUIET | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, cwd=home, env=environment, check=True, timeout=120)
    return binaries / "node", home


class Found(dict):
    """What the steps of a script found, by step; asking for one that failed fails with its traceback."""

    def __getitem__(self, step):
        outcome = super().__getitem__(step)
        if "error" in outcome:
            pytest.fail(outcome["error"], pytrace=False)
        return outcome["found"]


def found_by(command, server):
    """Run a script against the server; return what it found."""
    done = subprocess.run([*command, server.url], env=os.environ | QUIET, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.fail(f"{command[1]} failed:\n{done.stdout}{done.stderr}", pytrace=False)
    return Found(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def found(request, server):
    """What the script that the test module names as SCRIPT found, each step once."""
    script = request.module.SCRIPT
    if script.endswith(".mjs"):
        binary, home = request.getfixturevalue("node")
        return found_by([binary, home / script], server)
    return found_by([request.getfixturevalue("clients_python"), HERE / "scripts" / script], server)
