"""The files of `tools/deploy`, built and run as far as one machine can: `make test-deploy` runs this folder.

It needs root, a kernel with namespaces, and Debian's packages, which it installs. Without namespaces it checks the
files alone. The image is built without a network on a Debian that mmdebstrap makes, since no image registry is asked.
The same image, booted in a container by systemd-nspawn, is the machine on which the systemd unit runs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.apps.installed import debian
from tests.not_applicable import leave_out
from tests.uv import UV

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "tools/deploy"
KEPT = Path(sys.prefix) / "deploy"
"""The folder of what is kept between runs. It is inside .venv, which git ignores."""
BASE, IMAGE = "localhost/puna-test-base", "localhost/puna-test"
PACKAGES = "python3,python3-venv,libgomp1,systemd,systemd-sysv,dbus,curl"

collect_ignore_glob = [] if os.environ.get("PUNA_DEPLOY") else ["test_*.py"]

CONTAINER = ("unshare", "--mount", "--pid", "--fork", "--net", "mount", "-t", "proc", "proc", "/proc")
"""A command that succeeds where containers can run. Without root, or inside many containers, it fails."""


def pytest_collection_modifyitems(config, items):
    """Leave out the tests that need a container where the machine runs none."""
    contained = [item for item in items if "image" in getattr(item, "fixturenames", ())]
    if contained and subprocess.run(CONTAINER, capture_output=True, check=False).returncode:
        leave_out(config, items, contained, "tests are not applicable: this machine runs no containers")


def done(*command, seconds=300, **more):
    """Run a program to its end; return what it printed; fail with that if the program failed."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, **more)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="session")
def base():
    """The archive of a Debian with Python and systemd."""
    debian("mmdebstrap", "mmdebstrap")
    archive = KEPT / "base.tar"
    if not archive.exists():
        KEPT.mkdir(exist_ok=True)
        half = KEPT / "half.tar"
        done("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", half)
        half.rename(archive)
    return archive


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A folder as `make wheel` and the commands of the container's README fill it, with the llama.cpp of .venv."""
    folder = tmp_path_factory.mktemp("dist")
    quiet = os.environ | {"CC": "false", "PYTHONPATH": ""}
    for source in (".", "proto/python"):
        done(UV, "build", "--quiet", "--wheel", "--out-dir", folder, source, cwd=ROOT, env=quiet)
    done(sys.executable, ROOT / "tools/pack_installed.py", "llama-cpp-python", folder)
    needs = folder.parent / "requirements.txt"
    left = [f"--no-emit-package={name}" for name in ("puna-client", "llama-cpp-python")]
    extras = ("--extra=llama-cpp", "--extra=openai")
    done(UV, "export", "--frozen", "--quiet", "--no-dev", "--no-emit-project", *extras, *left, "-o", needs, cwd=ROOT)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
    done(*pip, "--require-hashes", "--dest", folder, "-r", needs)
    return folder


@pytest.fixture(scope="session")
def image(base, wheels):
    """The configuration of the image that the Containerfile builds without a network, and the path of its files."""
    debian("buildah", "buildah")
    start = done("buildah", "from", "scratch").strip()
    running = ""
    try:
        done("buildah", "add", "--quiet", start, base)
        done("buildah", "commit", "--quiet", start, BASE)
        build = ("buildah", "bud", "--format", "docker", "--isolation", "chroot", "--build-arg", f"BASE={BASE}")
        done("unshare", "--net", *build, "-t", IMAGE, "-f", DEPLOY / "container/Containerfile", wheels)
        running = done("buildah", "from", IMAGE).strip()
        described = json.loads(done("buildah", "inspect", IMAGE))["Docker"]["config"]
        yield described, Path(done("buildah", "mount", running).strip())
    finally:
        for each in filter(None, (running, start)):
            subprocess.run(["buildah", "rm", each], capture_output=True, check=False)
        subprocess.run(["buildah", "rmi", "--force", IMAGE, BASE], capture_output=True, check=False)
