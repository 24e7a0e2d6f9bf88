"""Servers on real Ray clusters, whose nodes are processes of this machine: `make test-ray` runs this folder."""

import importlib.metadata
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from tests.e2e.server import serving
from tests.ray.cluster import running_cluster
from tests.uv import UV

ROOT = Path(__file__).parents[2]
SCRIPTED = ROOT / "tests/plugins/scripted"
KEPT = Path(sys.prefix) / "ray/packages"
"""Where Ray is kept between runs, so that no other test has it: in the environment of the tests, which git ignores."""

collect_ignore_glob = [] if os.environ.get("PUNA_RAY") else ["test_*.py"]


def _missing():
    """The lines of the locked requirements of the extra that this environment lacks."""
    command = [UV, "export", "--quiet", "--frozen", "--extra", "ray", "--no-dev", "--no-emit-local"]
    exported = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout
    for line in exported.replace("\\\n", " ").splitlines():
        name = re.match(r"[\w.-]+", line)
        if name:
            try:
                importlib.metadata.version(name[0])
            except importlib.metadata.PackageNotFoundError:
                yield line


@pytest.fixture(scope="session")
def packages():
    """The folder with Ray."""
    if not KEPT.exists():
        listed = KEPT.with_name("requirements.txt")
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(_missing()))
        command = [UV, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(KEPT), "--no-deps"]
        subprocess.run([*command, "--require-hashes", "-r", str(listed)], check=True, timeout=300)
    return KEPT


@pytest.fixture(scope="session")
def ray_environment(packages, tmp_path_factory):
    """Variables with which Ray and Puna run: Ray's packages, the scripted backend, and a folder of Ray's own files."""
    path = [str(SCRIPTED), os.environ.get("PYTHONPATH", ""), str(packages)]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        # Its sockets must have short paths. No other cluster of this machine is found through it.
        "RAY_TMPDIR": str(tmp_path_factory.mktemp("ray")),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PUNA_NODE_CACHE": str(tmp_path_factory.mktemp("cache")),
        # Ray's parts give up on each other after some seconds, which a busy machine needs for importing them.
        "RAY_agent_register_timeout_ms": "120000",
        "RAY_worker_register_timeout_seconds": "120",
        "RAY_raylet_start_wait_time_s": "60",
        # How long they look for a head that is gone: a minute otherwise.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        # Nothing listens beyond the loopback interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


@pytest.fixture(scope="session")
def make_cluster(ray_environment):
    """Context manager: runs a cluster with as many nodes as there are numbers of CPUs; see tests.ray.cluster."""
    return partial(running_cluster, ray_environment)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory, ray_environment):
    """Context manager: runs `puna serve --launcher ray` on a cluster; see tests.e2e.server."""

    def start(cluster=None, store="models", **more):
        address = {"RAY_ADDRESS": cluster.address} if cluster is not None else {}
        return serving(
            tmp_path_factory.mktemp("server") / store,
            **(ray_environment | {"PUNA_LAUNCHER": "ray"} | address | more),
        )

    return start
