"""The image of the Containerfile runs as an ordinary account with a read-only root."""

import json
import os
import shutil
import signal
import subprocess
import urllib.request

import pytest
from tests.apps.installed import debian
from tests.e2e.server import READY, parents, wait_until

ACCOUNT = "10001"


@pytest.fixture(scope="module")
def container(image, tmp_path_factory):
    """The command that runs a program in the image, as a container engine would with --read-only and --cap-drop=all."""
    described, root = image
    bwrap = debian("bwrap", "bubblewrap")
    folder = tmp_path_factory.mktemp("volumes")
    for name in ("state", "tmp"):
        (folder / name).mkdir(mode=0o700)
        shutil.chown(folder / name, int(ACCOUNT), int(ACCOUNT))
    command = [bwrap, "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--clearenv"]
    command += ["--bind", folder / "state", "/var/lib/puna", "--bind", folder / "tmp", "/tmp"]
    command += ["--chdir", described["WorkingDir"]]
    variables = dict(each.split("=", 1) for each in described["Env"])
    variables |= {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_ALLOW_ANONYMOUS": "1"}
    for name, value in variables.items():
        command += ["--setenv", name, value]
    user, _, group = described["User"].partition(":")
    return [
        *command,
        "setpriv",
        f"--reuid={user}",
        f"--regid={group}",
        "--clear-groups",
        "--bounding-set=-all",
        "--no-new-privs",
    ]


@pytest.fixture(scope="module")
def server(image, container):
    described, _ = image
    process = subprocess.Popen(
        [*container, *described["Entrypoint"], *described["Cmd"]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    found = READY.search(line)
    if not found:
        process.kill()
        pytest.fail(line + process.communicate()[1])
    # bwrap passes no signal on.
    (pid,) = [each for each, parent in parents().items() if parent == process.pid]
    yield pid, found[1]
    if process.poll() is None:
        os.kill(pid, signal.SIGTERM)
    process.communicate(timeout=60)


def inside(container, *command):
    """Run a program in a second container on the same volumes."""
    return subprocess.run([*container, *command], capture_output=True, text=True, timeout=60, check=False)


def test_it_runs_a_model(server):
    asked = {"model": "llamita", "prompt": "Why is the sky blue?", "think": False, "stream": False}
    with urllib.request.urlopen(server[1] + "/api/generate", json.dumps(asked).encode(), timeout=120) as answer:
        assert "blue" in json.load(answer)["response"]


def test_the_account_is_ordinary_and_can_write_nothing_of_the_image(image, container):
    assert image[0]["User"] == f"{ACCOUNT}:{ACCOUNT}"
    shell = inside(
        container, "sh", "-c", "id -u; touch /opt/puna/x || touch /x || touch /var/lib/puna/x && echo written"
    )
    assert shell.stdout.split() == [ACCOUNT, "written"]
    assert shell.stderr.count("Read-only file system") == 2


def test_without_a_key_it_refuses_to_serve_others(image, container):
    addresses = ("env", "-u", "PUNA_ALLOW_ANONYMOUS", "OLLAMA_HOST=0.0.0.0:0", "PUNA_GRPC_HOST=0.0.0.0:0")
    refused = inside(container, *addresses, *image[0]["Entrypoint"], *image[0]["Cmd"])
    assert refused.returncode == 1
    assert "no API key protects" in refused.stderr


def test_the_health_check_tells_of_the_start_and_of_the_end(image, container, server):
    kind, *check = image[0]["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert inside(container, *check).returncode == 0
    pid, _ = server
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: pid not in parents(), 60)
    assert inside(container, *check).returncode != 0
