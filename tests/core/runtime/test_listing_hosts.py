"""Hosts that list models, as real processes."""

import asyncio
import itertools
import sys

import pytest

from puna.backend import UpstreamModel
from puna.errors import BackendFailedError
from puna.plugins import Plugin, read
from puna.runtime.host_loading import HostLoader
from puna.runtime.listing_hosts import ListingHosts
from puna.runtime.local_launcher import LocalLauncher

CODE = """
import os

from puna.backend import Backend, BackendError, UpstreamModel


class Lister(Backend):
    async def load(self, spec, report, /):
        raise NotImplementedError

    async def models(self, options, /):
        if "raise" in options:
            raise BackendError(options["raise"])
        if "exit" in options:
            os._exit(3)
        if "nonsense" in options:
            return [5]
        named = [UpstreamModel(name=each, context_length=7) for each in options["names"]]
        return [UpstreamModel(name=str(os.getpid()), capabilities=("completion", "tools")), *named]
"""
MANIFEST = """
contract = 1
name = "lister"
formats = []
host.class = "puna_lister:Lister"
capabilities.lists_models = true
"""


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "puna_lister.py").write_text(CODE)
    (tmp_path / "backend.toml").write_text(MANIFEST)
    command = (sys.executable, "-P", "-m", "puna.host", "puna_lister:Lister")
    return Plugin(name="lister", manifest=read(tmp_path / "backend.toml"), command=command, python_path=str(tmp_path))


@pytest.fixture
async def hosts(tmp_path):
    numbers = itertools.count()
    loader = HostLoader(LocalLauncher(lambda: tmp_path / str(next(numbers))))
    hosts = ListingHosts(lambda plugin: loader.connect(plugin, "a list"))
    yield hosts
    await hosts.aclose()


async def test_a_host_is_asked_again_and_again(hosts, plugin):
    first = await hosts.models(plugin, {"names": ["a/b", "two\nlines", "x" * 501]})
    assert first[1:] == [UpstreamModel(name="a/b", context_length=7)]
    assert first[0].capabilities == ("completion", "tools")
    assert (await hosts.models(plugin, {"names": []}))[0].name == first[0].name


async def test_an_error_ends_the_host_and_the_next_question_starts_another(hosts, plugin):
    process = (await hosts.models(plugin, {"names": []}))[0].name
    with pytest.raises(BackendFailedError, match="it is down"):
        await hosts.models(plugin, {"raise": "it is down"})
    with pytest.raises(BackendFailedError, match="the host has ended: exit status 3"):
        await hosts.models(plugin, {"exit": 1})
    with pytest.raises(BackendFailedError):
        await hosts.models(plugin, {"nonsense": 1})
    assert (await hosts.models(plugin, {"names": []}))[0].name != process


async def test_cancelling_a_question_ends_its_host(hosts, plugin):
    task = asyncio.create_task(hosts.models(plugin, {"names": []}))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
