import subprocess
import sys
from pathlib import Path

import puna
from puna.process import package_path

ROOT = Path(puna.__file__).parent


def test_another_interpreter_finds_puna_and_none_of_the_servers_libraries(tmp_path):
    folder = package_path.provide(tmp_path)
    assert package_path.provide(tmp_path) == folder
    variables = package_path.environment({"PYTHONPATH": "/elsewhere", "PATH": "/bin"}, Path("/venv"), folder)
    # -S hides the packages of this interpreter, as an environment of its own would.
    code = "import os, puna.backend, sys; print(os.path.realpath(puna.__path__[0])); print(sys.path)"
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", code], env=variables, capture_output=True, text=True, check=True, timeout=60
    )
    found, path = done.stdout.splitlines()
    assert Path(found) == ROOT
    assert str(ROOT.parent) not in path
    assert "/elsewhere" not in path
    assert [each.name for each in folder.iterdir()] == ["puna"]


def test_the_variables_are_those_of_the_plugins_environment():
    given = {"PATH": "/bin", "PYTHONHOME": "/h", "VIRTUAL_ENV": "/v", "HOME": "/me"}
    assert package_path.environment(given, Path("/venv"), Path("/p")) == {
        "HOME": "/me",
        "PATH": "/venv/bin:/bin",
        "PYTHONPATH": "/p",
        "VIRTUAL_ENV": "/venv",
    }
    assert package_path.environment({}, Path("/venv"), Path("/p"))["PATH"] == "/venv/bin"
