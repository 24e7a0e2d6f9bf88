"""Loads the kernels before any test module imports llama.cpp, as the host process of a model does."""

from tests.not_applicable import LINES, leave_out
from tests.plugins.ggml_kernels.processor import not_applicable

from puna_ggml_kernels import loader

if not not_applicable():
    loader.install()
else:
    import llama_cpp  # noqa: F401 - loaded first, it is left to itself


def pytest_collection_modifyitems(config, items):
    """Leave out the tests of the kernels where these cannot run."""
    if not_applicable():
        others = [item for item in items if item.get_closest_marker("kernels")]
        leave_out(config, items, others, f"tests of the kernels for ggml are not applicable: {not_applicable()}")


def pytest_terminal_summary(terminalreporter, config):
    """Say how many tests were left out, and why."""
    for line in config.stash.get(LINES, []):
        terminalreporter.write_line(line)
