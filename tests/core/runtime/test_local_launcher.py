"""Hosts on this machine."""

import os
from dataclasses import replace

import pytest

from puna.runtime.errors import HostFailedError
from puna.runtime.launcher import HostRequirements
from puna.runtime.local_launcher import LocalLauncher


def needed(backend):
    return HostRequirements(backend=backend, label="small:latest", ready_seconds=60.0)


async def test_an_endpoint_names_the_socket_and_the_process(registry, short_path):
    paths = iter([short_path / "a", short_path / "b"])
    launcher = LocalLauncher(lambda: next(paths))
    one, two = [await launcher.start(needed(registry.get("scripted"))) for _ in range(2)]
    assert (one.address, two.address) == (f"unix:{short_path}/a", f"unix:{short_path}/b")
    os.kill(one.host.pid, 0)
    await one.release()
    assert one.host.ended
    assert not two.host.ended
    await two.release()
    assert list(short_path.iterdir()) == []


async def test_a_host_that_does_not_start_is_an_error(registry, short_path):
    broken = replace(registry.get("scripted"), command=("/nonexistent/program",))
    with pytest.raises(HostFailedError, match="cannot be started"):
        await LocalLauncher(lambda: short_path / "a").start(needed(broken))
