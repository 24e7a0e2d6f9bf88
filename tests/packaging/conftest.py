"""The distributions as `make wheel` and users build them, and clean environments to install them into."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.uv import UV

collect_ignore = [] if os.environ.get("PUNA_WHEELS") else ["test_wheels.py"]
ROOT = Path(__file__).parents[2]
CLEAN = {"PYTHONPATH": ""}
"""Hides this checkout from an environment's Python."""


def uv(*arguments, **environment):
    """Run uv; fail with what it says."""
    done = subprocess.run(
        [UV, *arguments],
        cwd=ROOT,
        env=os.environ | CLEAN | environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is built of it, without kernels: compiling them takes a while."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", folder, CC="false")
    (source,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    return source, wheel


@pytest.fixture(scope="session")
def client_wheel(tmp_path_factory):
    """The wheel of puna-client."""
    folder = tmp_path_factory.mktemp("client")
    uv("build", "--quiet", "--wheel", "--out-dir", folder, "proto/python")
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def bare(built, client_wheel, tmp_path_factory):
    """The programs of an environment that holds Puna without any extra."""
    return install(tmp_path_factory.mktemp("bare") / "venv", built[1], client_wheel)


def install(home, *packages):
    """Make an environment with packages in it; return the folder of its programs. Options of uv may be among them."""
    uv("venv", "--quiet", "--python", sys.executable, home)
    uv("pip", "install", "--quiet", "--python", home / "bin/python", *packages)
    return home / "bin"
