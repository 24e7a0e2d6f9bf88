"""A generated distribution passes its own checks and tests, whatever its name is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from puna.installer import scaffold
from puna.installer.errors import PluginInstallError

LONGEST = "an-engine-of-the-longest-name-to-be-used"
BIN = Path(sys.executable).parent


def check(folder, *command, **variables):
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["a", "zebra", "llama-7b", LONGEST])
def test_it_is_formatted_and_free_of_mistakes(name, tmp_path):
    folder = scaffold.write(name, tmp_path)
    assert len(LONGEST) == scaffold.MAX_NAME
    check(folder, "ruff", "format", "--check")
    check(folder, "ruff", "check")


def test_no_placeholder_is_left(tmp_path):
    folder = scaffold.write("echo", tmp_path)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert folder / ".github/workflows/ci.yml" in written
    assert [path for path in written if re.search(r"@\w+@", path.read_text())] == []


def test_its_types_are_complete_and_its_tests_pass(tmp_path):
    folder = scaffold.write("my-engine", tmp_path)
    check(folder, "mypy")
    site = tmp_path / "site"
    check(folder, "uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", site, ".")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    assert " passed" in check(folder, "pytest", PYTHONPATH=path)


@pytest.mark.parametrize("name", ["puna-echo", "puna_echo", "echo"])
def test_the_prefix_is_added_once(name, tmp_path):
    folder = scaffold.write(name, tmp_path)
    assert folder == tmp_path / "puna-echo"
    assert (folder / "src/puna_echo/backend.py").is_file()


@pytest.mark.parametrize("name", ["", "Echo", "1echo", "echo-", "a--b", "../echo", "é", "x" * 41, "puna-"])
def test_names_that_are_refused(name, tmp_path):
    with pytest.raises(PluginInstallError, match="cannot name a backend"):
        scaffold.write(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["llama_cpp", "llama-cpp", "puna-llama-cpp"])
def test_names_of_punas_own_backends_are_refused(name, tmp_path):
    with pytest.raises(PluginInstallError, match="one of Puna's own backends"):
        scaffold.write(name, tmp_path, ["openai", "llama_cpp"])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "puna-echo").mkdir()
    with pytest.raises(PluginInstallError, match="exists already"):
        scaffold.write("echo", tmp_path)


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "puna"),
        ('{"url": "file:///src/puna", "dir_info": {"editable": true}}', "puna"),
        ('{"url": "https://example.com/puna.whl", "archive_info": {}}', "puna @ https://example.com/puna.whl"),
        (
            '{"url": "https://example.com/puna", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            "puna @ git+https://example.com/puna@abc",
        ),
    ],
)
def test_ci_installs_the_puna_that_others_can_get(origin, requirement, monkeypatch):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return origin

    monkeypatch.setattr(scaffold, "distribution", lambda name: Installed())
    assert scaffold.puna_requirement() == requirement
