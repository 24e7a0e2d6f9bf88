"""The choice of a node, and the settings of the launcher. tests/core/node has nodes that run."""

import asyncio
import errno
from dataclasses import replace

import pytest

from puna.plugins import Plugin
from puna.process import cluster_certificates as certificates
from puna.runtime.errors import HostFailedError, NodeError
from puna.runtime.launcher import HostRequirements
from puna.runtime.pool import ModelPool
from puna.runtime.static_launcher import StaticLauncher, static_launcher
from puna.settings import Settings

NEEDED = HostRequirements(backend=Plugin(name="b"), label="m", ready_seconds=1.0)


class Node:
    """Notes the hosts that it starts."""

    def __init__(self, hosts=0, free_bytes=0, error=None, connected=True, address=""):
        self.address = address
        self.hosts, self.free_bytes, self.error = hosts, free_bytes, error
        self.connected = connected
        self.closed = False

    async def connect(self):
        if self.error:
            raise self.error
        self.connected = True

    async def start(self, requirements):
        if self.error:
            raise self.error
        self.hosts += 1
        return self

    async def aclose(self):
        self.closed = True


async def test_the_node_with_the_fewest_hosts_then_the_most_memory_is_taken():
    nodes = [Node(1, 900), Node(0, 100), Node(0, 200)]
    launcher = StaticLauncher(nodes)
    assert [nodes.index(await launcher.start(NEEDED)) for _ in range(4)] == [2, 1, 0, 2]
    assert (launcher.machines, launcher.free_bytes()) == (3, 900)
    await launcher.aclose()
    assert all(each.closed for each in nodes)


async def test_every_reason_is_told_if_no_node_can_be_used():
    launcher = StaticLauncher([Node(error=NodeError("a is down")), Node(error=NodeError("b is full"))])
    with pytest.raises(NodeError, match="no node can run the model: a is down; b is full"):
        await launcher.start(NEEDED)
    await launcher.aclose()


async def test_nodes_to_avoid_are_passed_over():
    nodes = [Node(0, address="a:1"), Node(2, address="b:1"), Node(address="c:1", error=NodeError("c is down"))]
    launcher = StaticLauncher(nodes)
    assert await launcher.start(replace(NEEDED, avoid=frozenset(["a:1"]))) is nodes[1]
    with pytest.raises(NodeError, match="no node can run the model: a:1 is full; b:1 is full; c is down"):
        await launcher.start(replace(NEEDED, avoid=frozenset(["a:1", "b:1"])))
    await launcher.aclose()


class Far(Node):
    """Answers when it is told to."""

    def __init__(self, **fields):
        super().__init__(connected=False, **fields)
        self.answers = asyncio.Event()

    async def connect(self):
        await self.answers.wait()
        await super().connect()


async def test_nodes_are_connected_at_once_and_the_first_that_answers_is_taken():
    nodes = [Far(), Far(error=NodeError("b is down")), Far()]
    launcher = StaticLauncher(nodes)
    starting = asyncio.create_task(launcher.start(NEEDED))
    nodes[1].answers.set()
    nodes[2].answers.set()
    assert await asyncio.wait_for(starting, 30) is nodes[2]
    await launcher.aclose()


async def test_a_connected_node_waits_for_no_other():
    launcher = StaticLauncher([Far(), here := Node(7)])
    assert await asyncio.wait_for(launcher.start(NEEDED), 30) is here
    await launcher.aclose()


async def test_a_given_up_start_leaves_the_connecting_to_others():
    launcher = StaticLauncher([far := Far()])
    first = asyncio.create_task(launcher.start(NEEDED))
    await asyncio.sleep(0)
    second = asyncio.create_task(launcher.start(NEEDED))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    far.answers.set()
    assert await asyncio.wait_for(second, 30) is far
    await launcher.aclose()


async def test_a_host_that_does_not_start_is_tried_on_no_other_node():
    other = Node(5)
    launcher = StaticLauncher([Node(error=HostFailedError("it died")), other])
    with pytest.raises(HostFailedError, match="it died"):
        await launcher.start(NEEDED)
    assert other.hosts == 5
    await launcher.aclose()


@pytest.mark.parametrize(
    ("hosts", "text"), [((), "needs the addresses of nodes"), (("gpu1",), "'gpu1'"), (("gpu1:0",), "'gpu1:0'")]
)
async def test_wrong_settings_end_the_start(registry, hosts, text):
    with pytest.raises(OSError, match=text) as raised:
        await ModelPool(registry, Settings(launcher="static", hosts=hosts)).__aenter__()
    assert raised.value.errno == errno.EINVAL


async def test_a_missing_certificate_is_named(tmp_path):
    settings = Settings(launcher="static", hosts=("gpu1:7",), cluster_tls=tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        static_launcher(settings, lambda: tmp_path / "s")
    assert raised.value.filename == str(tmp_path / "ca.crt")


async def test_settings_make_a_launcher(tmp_path):
    certificates.make(tmp_path)
    settings = Settings(launcher="static", hosts=("127.0.0.1:1", "[::1]:1"), cluster_tls=tmp_path / "core")
    launcher = static_launcher(settings, lambda: tmp_path / "s")
    with pytest.raises(NodeError, match=r"127.0.0.1:1 cannot be reached: .*; \[::1\]:1 cannot be reached: "):
        await launcher.start(NEEDED)
    await launcher.aclose()
