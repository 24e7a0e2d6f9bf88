"""Puna from its wheel, without a checkout and without uv: venv and pip make the environments."""

import json
import shutil
import subprocess
import sys

import pytest
from tests.environments.conftest import Place, write_plugin
from tests.packaging.conftest import bare, built, client_wheel  # noqa: F401 - fixtures


@pytest.fixture
def place(bare, tmp_path):  # noqa: F811
    """The command line of the wheel, with a PATH that has no uv."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "env", "uname"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    return Place(tmp_path / "plugins", bare / "puna", {"PATH": str(programs), "PYTHONPATH": ""})


def test_pip_installs_what_uv_would(place, tmp_path):
    assert not (place.program.parent / "uv").exists()
    source = write_plugin(tmp_path / "echo", "echo", "six==1.16.0")
    place.plugin("install", source)
    assert place.listed()["echo"]["fault"] == ""
    place.plugin("check", "echo")
    write_plugin(source, "echo", "six==1.16.0", version="2.0")
    place.plugin("upgrade")
    assert place.listed()["echo"]["version"] == "2.0"
    assert "could not be installed (python: exit status 1)" in place.plugin("install", "six==99", status=1)


def test_the_wheel_brings_the_plugin_of_ctransformers_along(place):
    place.plugin("install", "puna-ctransformers")
    assert place.listed()["ctransformers"]["formats"] == ["gguf"]
    (record,) = place.folder.glob("*/plugin.json")
    assert "ctransformers==0.2.27" in json.loads(record.read_text())["packages"]


def test_python_without_uv_and_without_ensurepip_names_the_command(bare, tmp_path):  # noqa: F811
    """Debian's Python has no ensurepip unless python3-venv is installed."""
    code = "import sys; sys.modules['ensurepip'] = None; from puna.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [bare / "python", "-c", code, "plugin", "install", write_plugin(tmp_path / "echo", "echo")],
        env={"PATH": "/nowhere", "PUNA_PLUGINS_FOLDER": str(tmp_path / "plugins"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "Error: plugins are installed with uv, which is not installed; to install: pip install uv\n"
    assert sys.executable != bare / "python"
