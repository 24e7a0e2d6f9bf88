"""Runs the contract tests of `puna.testing` on an installed backend, with the small model that it brings for that.

The tests run under pytest in Puna's environment and load the model through a host in the plugin's.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from puna.installer.errors import PluginInstallError
from puna.plugins import Plugin

MODULE: Final = """
from pathlib import Path

from puna.backend import ModelSpec
from puna.plugins.discovery import in_environment
from puna.testing import BackendContract


class TestPlugin(BackendContract):
    prompt = {prompt!r}

    @classmethod
    def plugin(cls):
        return next(each for each in in_environment(Path({home!r}), "") if each.name == {name!r})

    def spec(self):
        return ModelSpec(path={path!r}, context_length={context_length!r}, format={format!r})
"""


def check_contract(backend: Plugin) -> str:
    """Run the tests; return the result in words. Raises PluginInstallError if a test fails; pytest prints which."""
    check = backend.usable.check
    if not check.model:
        return "the manifest names no model to test with (check.model)"
    path = backend.usable.path.parent / check.model
    if not path.exists():
        raise PluginInstallError(f"check.model: there is neither a file nor a folder {path}")
    if importlib.util.find_spec("pytest") is None:
        return "the contract tests need pytest; to install: pip install pytest"
    text = MODULE.format(
        name=backend.name,
        home=backend.environment,
        path=str(path),
        prompt=check.prompt,
        context_length=check.context_length,
        format=next(iter(backend.formats), ""),
    )
    with tempfile.TemporaryDirectory() as folder:
        test = Path(folder, "test_contract.py")
        test.write_text(text)
        # A configuration of its own keeps that of the user's project out.
        Path(folder, "pytest.ini").write_text("[pytest]\n")
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(test)]
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=2, check=False)
    if done.returncode:
        raise PluginInstallError("the contract tests fail")
    return "the contract tests pass"
