"""The effect of a reload on a server's settings, and the reports of it."""

import asyncio
import logging

import pytest

from puna.cli.reloading import Reloader
from puna.configuration import ConfigurationInvalidError
from puna.limits import Limits
from puna.settings import from_environment


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.toml"
    path.touch()
    return path


@pytest.fixture
def reloader(file):
    return Reloader(from_environment({}, file), None, file)


async def test_listeners_hear_of_changes_alone(reloader, file):
    heard = []
    reloader.listeners.append(lambda: heard.append(reloader._settings.max_queue))
    assert await reloader.reload() == ([], [])
    file.write_text("max_queue = 3\n")
    assert await reloader.reload() == (["max_queue"], [])
    assert heard == [3]


async def test_a_bad_file_changes_nothing_at_all(reloader, file):
    file.write_text("max_queue = 3\n[model.a]\nnum_parallel = 0\n")
    before = repr(reloader._settings)
    with pytest.raises(ConfigurationInvalidError, match=r"config\.toml:3: model\.a\.num_parallel: it must be"):
        await reloader.reload()
    file.unlink()
    with pytest.raises(ConfigurationInvalidError, match="No such file"):
        await reloader.reload()
    assert repr(reloader._settings) == before


async def test_limits_wait_for_the_next_start(reloader, file):
    file.write_text("[limits]\nmax_stops = 3\nmax_connections = 9\n")
    assert await reloader.reload() == ([], ["limits"])
    assert reloader._settings.limits == Limits()


async def test_a_signal_logs_what_a_call_raises(reloader, file, caplog):
    file.write_text("zz = 3\n")
    with caplog.at_level(logging.INFO, "puna.cli.reloading"):
        reloader.start()
        await asyncio.gather(*reloader._tasks)
    assert "zz: there is no such setting" in caplog.text
