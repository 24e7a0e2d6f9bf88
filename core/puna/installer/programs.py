"""The programs that make environments and install into them: uv, or Python's own venv and pip.

uv is not a dependency of Puna, because it is large and only this package uses it. It takes a second where venv and pip
take ten, and it finds other versions of Python.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from puna.installer.errors import PluginInstallError

NOT_BUILT: Final = "the plugin could not be built"
NOT_INSTALLED: Final = "the plugin could not be installed"
NEITHER: Final = "plugins are installed with uv, which is not installed; to install: pip install uv"
_LEFT_OUT: Final = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
"""Variables that would make uv or pip work in another environment."""


class Programs(Protocol):
    """What makes environments."""

    def make(self, venv: Path, python: str) -> None:
        """Make a virtual environment. `python` is a version or an interpreter; empty: that of this process."""

    def build(self, venv: Path, source: Path, target: Path) -> None:
        """Build the wheel of a folder, whatever was built of it before, into the folder `target`."""

    def install(self, venv: Path, requirements: Sequence[str]) -> None:
        """Install requirements."""


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs a program in a folder, with its output on this terminal."""

    folder: Path
    inherited: tuple[int, ...] = ()
    """File descriptors that the program inherits."""

    def run(self, failure: str, *command: str | Path) -> None:
        """Run it. Raises PluginInstallError with the text `failure` if its status is not 0."""
        variables = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
        # Programs read settings of the project in the current folder, and the user may stand in any project.
        # What a program prints is progress; standard output is for the command's own answer.
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=2,
            pass_fds=self.inherited,
            check=False,
        )
        if done.returncode:
            raise PluginInstallError(f"{failure} ({Path(command[0]).name}: exit status {done.returncode})")


@dataclass(frozen=True, slots=True)
class Uv:
    """uv."""

    program: Path
    runner: Runner

    def make(self, venv: Path, python: str) -> None:
        """Make a virtual environment."""
        self._run("no environment could be made", "venv", "--quiet", "--python", python or sys.executable, venv)

    def build(self, venv: Path, source: Path, target: Path) -> None:
        """Build a wheel. `uv pip install` of a folder would take an earlier build if pyproject.toml is the same."""
        self._run(NOT_BUILT, "build", "--quiet", "--wheel", "--python", _python(venv), "--out-dir", target, source)

    def install(self, venv: Path, requirements: Sequence[str]) -> None:
        """Install requirements."""
        self._run(NOT_INSTALLED, "pip", "install", "--python", _python(venv), *requirements)

    def _run(self, failure: str, *arguments: str | Path) -> None:
        self.runner.run(failure, self.program, *arguments)


@dataclass(frozen=True, slots=True)
class Pip:
    """venv and pip, for an installation without uv."""

    runner: Runner

    def make(self, venv: Path, python: str) -> None:
        """Make a virtual environment."""
        command = (python or sys.executable, "-m", "venv", str(venv))
        self.runner.run(f"no environment could be made; {NEITHER}", *command)

    def build(self, venv: Path, source: Path, target: Path) -> None:
        """Build a wheel."""
        self._pip(NOT_BUILT, venv, "wheel", "--no-deps", "--wheel-dir", target, source)

    def install(self, venv: Path, requirements: Sequence[str]) -> None:
        """Install requirements."""
        self._pip(NOT_INSTALLED, venv, "install", *requirements)

    def _pip(self, failure: str, venv: Path, command: str, *arguments: str | Path) -> None:
        quiet = ("--quiet", "--disable-pip-version-check")
        self.runner.run(failure, _python(venv), "-m", "pip", command, *quiet, *arguments)


def find(runner: Runner) -> Programs:
    """Return uv if it lies beside this interpreter or on PATH, and otherwise pip. Raises PluginInstallError."""
    beside = Path(sys.executable).with_name("uv")
    program = beside if os.access(beside, os.X_OK) else shutil.which("uv")
    if program:
        return Uv(Path(program), runner)
    # Debian has the module venv without ensurepip, which it needs, in its plain installation of Python.
    if importlib.util.find_spec("ensurepip") is None:
        raise PluginInstallError(NEITHER)
    return Pip(runner)


def _python(venv: Path) -> Path:
    return venv / "bin" / "python"
