"""Nodes in processes of their own, and contract tests whose hosts run on them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.server import PUNA, parents, wait_until

from puna.process.cluster_tls import core_context
from puna.runtime import sockets
from puna.runtime.node import Node
from puna.runtime.static_launcher import StaticLauncher
from puna.testing import hosts

SILENCE = 20.0
"""Seconds within which a node must answer in tests that are not about silence."""


@dataclass
class RunningNode:
    process: subprocess.Popen
    address: str
    errors: Path

    def log(self):
        return self.errors.read_text()

    def hosts(self):
        """Process ids of the hosts that it runs."""
        return [pid for pid, parent in parents().items() if parent == self.process.pid]

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(30)


@contextmanager
def node_of(cluster, *options, **environment):
    """Run `puna node run` until the block ends. It must leave no host behind, and no traceback in its log."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors"
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [PUNA, "node", "run", "--listen", "127.0.0.1:0", *options],
                env=os.environ
                | {"PUNA_CLUSTER_TLS": str(cluster / "node"), "PUNA_NODE_CACHE": f"{folder}/cache"}
                | environment,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        node = RunningNode(process, "", errors)
        try:
            line = process.stdout.readline()
            match = re.search(r"node on (\S+)", line)
            assert match, f"the node did not start: {line}{node.log()}"
            node.address = match[1]
            yield node
        finally:
            left = node.hosts()
            node.end()
            process.stdout.close()
            wait_until(lambda: not set(left) & parents().keys(), failure="a node has left hosts behind")
            log = node.log()
    assert "Traceback" not in log, log


@contextmanager
def contract_on_nodes(cluster, **environment):
    """Have contract tests start their hosts on nodes, of which each event loop has one; yield the list of nodes."""
    with ExitStack() as stack:
        paths, context = stack.enter_context(sockets.folder()), core_context(cluster / "core")
        nodes, free, launchers = [], [], {}

        class Shared:
            """The launcher of an event loop. A process is one core, which has one lease of a node."""

            def __init__(self, next_socket):
                self._loop = asyncio.get_running_loop()
                if self._loop not in launchers:
                    if not free:
                        # The loop of the shared model stands still while other tests run, and renews nothing.
                        nodes.append(stack.enter_context(node_of(cluster, "--lease", "3600", **environment)))
                        free.append(nodes[-1])
                    node = free.pop()
                    launcher = StaticLauncher([Node(node.address, context, paths.next, SILENCE)])
                    launchers[self._loop] = [0, node, launcher]
                self._shared = launchers[self._loop]
                self._shared[0] += 1
                self.machines = 1
                launcher = self._shared[2]
                self.start, self.nodes, self.free_bytes = launcher.start, launcher.nodes, launcher.free_bytes
                self.has_room = launcher.has_room

            async def aclose(self):
                self._shared[0] -= 1
                if not self._shared[0]:
                    await self._shared[2].aclose()
                    free.append(self._shared[1])
                    del launchers[self._loop]

        was, hosts.make_launcher = hosts.make_launcher, Shared
        try:
            yield nodes
        finally:
            hosts.make_launcher = was


class Stream:
    """A streamed answer that a thread reads; `lines` are the messages so far."""

    def __init__(self, server, prompt):
        self.lines, self.ended_at = [], 0.0
        self._answer = server.open("/api/generate", {"model": "scripted", "prompt": prompt, "raw": True})
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        with self._answer:
            for line in self._answer:
                self.lines.append(json.loads(line))
        self.ended_at = time.monotonic()

    def begun(self):
        wait_until(lambda: self.lines)

    def end(self):
        self._thread.join(60)
        assert self.ended_at, "the stream hangs"
        return self.lines[-1]
