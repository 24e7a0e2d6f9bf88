import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from puna.node.file_cache import FileCache
from puna.node.serve import running
from puna.process import cluster_certificates as certificates
from puna.process.cluster_tls import core_context
from puna.runtime import sockets
from puna.runtime.heartbeat import HangTimeouts
from puna.runtime.host_loading import HostLoader
from puna.runtime.node import Node
from puna.runtime.static_launcher import StaticLauncher

TIMEOUTS = HangTimeouts(silence=60.0, step=60.0)
SILENCE = 20.0
"""Of nodes that are not meant to look gone on a busy machine."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The folder of a cluster's certificates."""
    folder = tmp_path_factory.mktemp("cluster")
    certificates.make(folder)
    return folder


@pytest.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def run_node(registry, cluster, stack, tmp_path):
    """Runs a node in this process until the test ends."""

    async def run_node(folder=cluster / "node", lease_seconds=60.0, cache=None, shared=()):
        cache = cache or FileCache(tmp_path / "cache", 1 << 30)
        return await stack.enter_async_context(running(registry, folder, "127.0.0.1", 0, lease_seconds, cache, shared))

    return run_node


@pytest.fixture
def make_node(cluster, stack):
    """Makes a core's side of a node."""
    with sockets.folder() as paths:

        def make_node(address, folder=cluster / "core", silence=SILENCE):
            node = Node(address, core_context(folder), paths.next, silence)
            stack.push_async_callback(node.aclose)
            return node

        yield make_node


@pytest.fixture
def file(tmp_path):
    """A file that passes for a model."""
    path = tmp_path / "model.file"
    path.write_bytes(b"model")
    return path


@pytest.fixture
def load_on(registry, want, file, stack):
    """Loads the scripted model on nodes."""

    async def load_on(
        *nodes,
        on_death=lambda: None,
        backend=None,
        spec=None,
        stall_seconds=30.0,
        timeouts=TIMEOUTS,
        on_transfer=lambda *_: None,
        **options,
    ):
        launcher = StaticLauncher(nodes)
        stack.push_async_callback(launcher.aclose)
        model = await HostLoader(launcher).load(
            backend or registry.get("scripted"),
            spec or replace(want(**options).spec, path=str(file)),
            report=lambda _: None,
            stall_seconds=stall_seconds,
            on_death=on_death,
            timeouts=timeouts,
            on_transfer=on_transfer,
        )
        stack.push_async_callback(model.aclose)
        return model

    return load_on


class Network:
    """A proxy in front of a node, whose packets can be dropped."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._place = host, int(port)
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks = set()

    async def open(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())

    def drop(self):
        """Pass on nothing from now on. The connections stay open."""
        self._passes.clear()

    def heal(self):
        self._passes.set()

    async def close(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        # A task of its own, since asyncio complains about a cancelled one that it has started.
        self._tasks.add(asyncio.create_task(self._connect(reader, writer)))

    async def _connect(self, reader, writer):
        await self._passes.wait()
        inner_reader, inner_writer = await asyncio.open_connection(*self._place)
        await asyncio.gather(self._copy(reader, inner_writer), self._copy(inner_reader, writer))

    async def _copy(self, reader, writer):
        try:
            while data := await reader.read(65536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
def network(stack):
    """Puts a proxy in front of a node."""

    async def network(address):
        made = Network(address)
        await made.open()
        stack.push_async_callback(made.close)
        return made

    return network
