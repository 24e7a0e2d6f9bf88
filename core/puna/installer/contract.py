"""Runs the contract tests of `puna.testing` on an installed backend, with the small model that it brings for that.

The tests run in this process and load the model through a host in the plugin's environment.
"""

from pathlib import Path

from puna.backend import ModelSpec
from puna.installer.errors import PluginInstallError
from puna.plugins import Plugin
from puna.testing import BackendContract, ChatContract, run_contract
from puna.testing.harness import ContractBase


def check_contract(backend: Plugin) -> str:
    """Run the tests; return the result in words. Raises PluginInstallError with the report of each test that fails."""
    check = backend.usable.check
    if not check.model:
        return "the manifest names no model to test with (check.model)"
    path = backend.usable.path.parent / check.model
    if not path.exists():
        raise PluginInstallError(f"check.model: there is neither a file nor a folder {path}")
    outcomes = list(run_contract(_contract_of(backend, path)))
    failed = [each for each in outcomes if each.failure]
    if failed:
        reports = [f"{each.name}: {each.description}\n{each.failure}" for each in failed]
        raise PluginInstallError("\n\n".join([f"{len(failed)} of {len(outcomes)} contract tests fail", *reports]))
    return f"{len(outcomes)} contract tests pass"


def _contract_of(backend: Plugin, path: Path) -> type[ContractBase]:
    """Return the tests of a backend, for the model at a path."""
    check = backend.usable.check

    class Checked(ChatContract if backend.usable.capabilities.chat else BackendContract):  # type: ignore[misc]  # chosen
        prompt = check.prompt
        model_format = next(iter(backend.formats), "")

        @classmethod
        def plugin(cls) -> Plugin:
            return backend

        def spec(self) -> ModelSpec:
            return ModelSpec(path=str(path), context_length=check.context_length)

    return Checked
