"""A Ray cluster in a process of its own, whose parts can be killed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.server import command, parents, wait_until
from tools.soak.kills.programs import give_priority

PROGRAM = Path(__file__).with_name("cluster_program.py")
ATTEMPTS = 3
"""How often the head is started, if it gives up on a busy machine."""


@dataclass
class RayNode:
    """A node of the cluster."""

    raylet: int
    """Process id of its agent."""

    def actors(self):
        """Process ids of the workers that run an actor of a host."""
        return [pid for pid, parent in parents().items() if parent == self.raylet and b"HostActor" in command(pid)]

    def kill(self):
        """Kill its raylet. The workers end with it."""
        kill(self.raylet)


def kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def runs_in(pid, variables):
    """Whether a process has the folder of Ray's files that `variables` name."""
    return f"RAY_TMPDIR={variables['RAY_TMPDIR']}".encode() in _environment(pid)


def puna_nodes(variables):
    """Process ids of the nodes of Puna (`puna node run`) that run in the folder of Ray's files."""
    return [pid for pid in parents() if b"--supervised" in command(pid) and runs_in(pid, variables)]


def hosts_of(node):
    """Process ids of the hosts that a node of Puna runs."""
    return [pid for pid, parent in parents().items() if parent == node]


def _environment(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


class Cluster:
    """A running cluster. The first of its nodes is the head's."""

    def __init__(self, process, variables):
        self._process = process
        self.variables = variables
        self.address = ""
        self.head = 0
        """Process id of the head's server (GCS), which knows the nodes and actors of the cluster."""
        self.nodes = []

    def add(self, cpus=2, **more):
        """Add a node; return it."""
        told = self._ask({"cpus": cpus, **more})
        self.address, self.head = told["address"], told["head"]
        self.nodes.append(RayNode(told["raylet"]))
        return self.nodes[-1]

    def puna_nodes(self):
        """Process ids of the nodes of Puna on this cluster, wherever they run."""
        return puna_nodes(self.variables)

    def hosts(self):
        """Process ids of the hosts on this cluster."""
        return [pid for node in self.puna_nodes() for pid in hosts_of(node)]

    def actors(self):
        """Process ids of the actors of hosts."""
        return [pid for node in self.nodes for pid in node.actors()]

    def kill_head(self):
        kill(self.head)

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def running_cluster(variables, *cpus, **more):
    """Run a cluster until the block ends, with a node for each number of CPUs. No node of Puna may be left.

    `more` are further variables of the cluster's processes.
    """
    with ExitStack() as stack:
        for attempt in range(ATTEMPTS):
            stack.close()
            cluster = stack.enter_context(_program(variables | more))
            try:
                cluster.add(cpus[0])
                break
            except ValueError:  # the head has not started, and the program has ended
                if attempt == ATTEMPTS - 1:
                    raise
        for each in cpus[1:]:
            cluster.add(each)
        yield cluster
        wait_until(lambda: not cluster.puna_nodes(), failure="nodes of Puna are left")


@contextmanager
def _program(variables):
    """Run the program of a cluster until the block ends; yield the cluster, which has no nodes yet."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        give_priority(process.pid)
        cluster = Cluster(process, variables)
        try:
            yield cluster
        finally:
            for pid in cluster.puna_nodes():
                kill(pid)
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.stdout.close()
