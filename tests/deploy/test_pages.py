"""The configurations that the pages and the Kubernetes example show have no mistakes."""

import re
import subprocess

import pytest
import yaml
from tests.certificates import Certificates
from tests.deploy.conftest import DEPLOY
from tests.e2e.server import PUNA


def shown():
    """Map names to texts of configuration files."""
    (page,) = re.findall(r"```toml\n(.*?)```", (DEPLOY / "team-server.md").read_text(), re.DOTALL)
    objects = yaml.safe_load_all((DEPLOY / "kubernetes/puna.yaml").read_text())
    (pod,) = [each["data"]["config.toml"] for each in objects if each["kind"] == "ConfigMap"]
    return {"team-server": page, "kubernetes": pod}


@pytest.mark.parametrize("name", shown())
def test_a_configuration_has_no_mistake(name, tmp_path):
    path = tmp_path / "config.toml"
    certificate, key = Certificates(tmp_path).issue("server")
    text = shown()[name].replace("/etc/puna/fullchain.pem", str(certificate)).replace("/etc/puna/key.pem", str(key))
    path.write_text(text)
    done = subprocess.run([PUNA, "config", "check", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_options_of_keys_exist():
    """Every option that the pages give to `puna key create` is one of it."""
    helped = subprocess.run(
        [PUNA, "key", "create", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    lines = [line for page in DEPLOY.rglob("*.md") for line in page.read_text().splitlines() if "key create" in line]
    given = {option for line in lines for option in re.findall(r"--[a-z-]+", line.partition("key create")[2])}
    assert given
    assert given <= set(re.findall(r"--[a-z-]+", helped))
