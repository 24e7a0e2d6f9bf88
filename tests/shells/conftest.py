"""The command line in real shells: `make test-shells` runs this folder."""

import os
from contextlib import contextmanager

import pytest
from tests.apps.installed import debian
from tests.e2e.server import MODELS, PUNA, serving
from tests.e2e.terminal import terminal

collect_ignore_glob = [] if os.environ.get("PUNA_SHELLS") else ["test_*.py"]

STARTS = {
    "bash": (("--norc", "-i"), 'eval "$(puna completion bash)"'),
    "fish": (("--no-config", "-i"), "puna completion fish | source"),
    "zsh": (("-f", "-i"), 'autoload -U compinit; compinit -u -D; eval "$(puna completion zsh)"'),
}
"""Options of each shell, and the line that switches completion on."""
CTRL_U = "\x15"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("home") / "models") as running:
        for name in ("llama3:8b", "llama3:70b"):
            running.upload(name, MODELS / "scripted.gguf")
        yield running


@pytest.fixture(params=STARTS)
def shell(request, server, tmp_path, monkeypatch):
    """A function that starts a shell in a folder with a few files, with completion switched on."""
    options, line = STARTS[request.param]
    program = debian(request.param, request.param)
    (tmp_path / "picture.png").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)

    @contextmanager
    def start(**environment):
        path = os.pathsep.join([str(PUNA.parent), os.environ["PATH"]])
        variables = {"PATH": path, "HOME": str(tmp_path), "PUNA_GRPC_HOST": server.grpc} | environment
        with terminal([program, *options], **variables) as shown:
            shown.enter(line)
            wait(shown)
            yield shown

    return start


def wait(shown):
    """Wait until the shell has run all lines so far."""
    # The line that is typed differs from the line that it prints.
    shown.enter("echo do''ne")
    shown.expect("done")


def tab(shown, typed, expected):
    """Type the start of a line and Tab, wait for the rest, and erase the line."""
    shown.press(f"{typed}\t")
    shown.expect(expected)
    shown.press(CTRL_U)
    wait(shown)
