import asyncio
import socket

import pytest
from tests.core.cli.serving import address, backend, batches, client, registry, serving, settings, shared, stocked

from puna.cli.completion import sources
from puna.settings import Settings

__all__ = ["address", "backend", "batches", "client", "registry", "serving", "settings", "shared", "stocked"]


async def asked(settings, source, current=""):
    """Ask in a thread: a command has an event loop of its own."""
    return await asyncio.to_thread(sources.names, lambda: settings, source, current)


async def test_names_come_from_the_server(client):
    names = await asked(client, sources.INSTALLED)
    assert "plain" in names
    assert "plain:latest" in await asked(client, sources.INSTALLED, "plain:")
    assert await asked(client, sources.LOADED) == []
    assert await asked(client, sources.REQUESTS) == []
    assert await asked(client, sources.RECORDS) == []
    assert await asked(client, sources.BACKENDS) != []
    assert await asked(client, sources.FORMATS) == ["gguf"]


def test_names_of_this_machine(tmp_path):
    settings = Settings(models=tmp_path, keys=tmp_path / "keys.json", plugins_folder=tmp_path / "plugins")

    def names(source, current=""):
        return sources.names(lambda: settings, source, current)

    assert names(sources.KEYS) == names(sources.PLUGINS) == []
    assert {"inference", "all"} <= set(names(sources.GRANTS))
    assert {"tools", "vision"} <= set(names(sources.CAPABILITIES))
    assert "Q4_K_M" in names(sources.QUANTIZATIONS)
    assert "q4_k_m" in names(sources.QUANTIZATIONS, "q4")


def test_a_server_that_does_not_answer_gives_no_names():
    """It listens, and never accepts."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = Settings(grpc_host=f"127.0.0.1:{silent.getsockname()[1]}")
        assert sources.names(lambda: settings, sources.INSTALLED, "") == []


@pytest.mark.parametrize("error", [OSError("unreadable"), ValueError("broken")])
def test_settings_that_cannot_be_read_give_no_names(error):
    def read():
        raise error

    assert sources.names(read, sources.INSTALLED, "") == []


def test_names_that_a_shell_would_read_otherwise_are_not_offered(monkeypatch):
    hostile = ["a;b", "$(x)", "`x`", "a b", "a\nb", "hf.co/x/y:Q4_K_M"]
    monkeypatch.setitem(sources._OF_MACHINE, sources.GRANTS, lambda _: hostile)
    assert sources.names(Settings, sources.GRANTS, "") == ["hf.co/x/y:Q4_K_M"]
