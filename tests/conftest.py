"""Loads the kernels before any test module imports llama.cpp, as the host process of a model does."""

import pytest
from tests.plugins.ggml_kernels.processor import not_applicable

from puna_ggml_kernels import loader

NOT_APPLICABLE = pytest.StashKey[int]()

if not not_applicable():
    loader.install()
else:
    import llama_cpp  # noqa: F401 - loaded first, it is left to itself


def pytest_collection_modifyitems(config, items):
    """Leave out the tests of the kernels where these cannot run. They lack no tool, so none is skipped."""
    if not_applicable():
        others = [item for item in items if item.get_closest_marker("kernels")]
        config.stash[NOT_APPLICABLE] = len(others)
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def pytest_terminal_summary(terminalreporter, config):
    """Say how many were left out, and why."""
    if count := config.stash.get(NOT_APPLICABLE, 0):
        terminalreporter.write_line(f"{count} tests of the kernels for ggml are not applicable: {not_applicable()}")
