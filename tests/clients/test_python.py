"""The client in Python: puna-client, as a wheel in an environment of its own."""

import os
import sys
from pathlib import Path

from tests.clients.projects import PROTO, copy, run
from tests.clients.readme import check, check_secure, follow
from tests.uv import UV


def test_the_suite_in_python(variables):
    home = copy("python", ".venv")
    environment = os.environ | variables | {"PYTHONPATH": "", "VIRTUAL_ENV": ""}
    python = home / ".venv/bin/python"
    run(UV, "venv", "--quiet", "--clear", "--python", sys.executable, home / ".venv", cwd=home, env=environment)
    run(UV, "build", "--quiet", "--wheel", "--out-dir", home / "dist", PROTO / "python", cwd=home, env=environment)
    (wheel,) = (home / "dist").glob("*.whl")
    run(UV, "pip", "install", "--quiet", "--python", python, wheel, "-r", "requirements.txt", cwd=home, env=environment)
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=home, env=environment)


def test_the_readme_in_python(plain, secure, tmp_path):
    printed = follow("Python", tmp_path, plain.grpc, Path(sys.executable).parent, secure, PYTHONPATH="")
    check(printed)
    check_secure(printed)
