"""The socket of a core is found by programs of the same account, and only in a folder of its own."""

import socket
import stat

import pytest

from puna.process import core_socket


@pytest.fixture(autouse=True)
def runtime(tmp_path_factory, monkeypatch):
    # A short path, since the address of a Unix socket has room for a hundred bytes.
    folder = tmp_path_factory.mktemp("r")
    folder.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


def test_a_core_that_serves_is_found():
    path = core_socket.prepared(11435)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert core_socket.found(11435) is None
    with socket.socket(socket.AF_UNIX) as core:
        core.bind(str(path))
        core.listen()
        assert core_socket.found(11435) == path
        assert core_socket.found(11436) is None
    # The file is still there, as a server leaves it that was killed.
    assert path.exists()
    assert core_socket.found(11435) is None


def test_a_folder_that_others_may_enter_is_not_used(runtime):
    runtime.chmod(0o755)
    assert core_socket.prepared(11435) is None


def test_a_link_is_not_followed(runtime, tmp_path, monkeypatch):
    (tmp_path / "mine").symlink_to(runtime)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "mine"))
    assert core_socket.prepared(11435) is None


def test_without_a_runtime_folder_it_lies_among_temporary_files(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert core_socket.prepared(11435).parent.parent == tmp_path


def test_sockets_of_killed_servers_go_at_the_next_start():
    dead = core_socket.prepared(1)
    with socket.socket(socket.AF_UNIX) as core:
        core.bind(str(dead))
    living = core_socket.prepared(2)
    with socket.socket(socket.AF_UNIX) as core:
        core.bind(str(living))
        core.listen()
        core_socket.prepared(3)
        assert not dead.exists()
        assert living.exists()
