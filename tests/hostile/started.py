"""Processes of ours whose whole life matters: how they start, what they say, how they end and what they leave."""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from tests.e2e.server import MODELS, parents, wait_until

PUNA = [sys.executable, "-P", "-m", "puna"]
PLUGIN = Path(__file__).parents[1] / "plugins" / "scripted"
ADDRESSES = re.compile(r"REST on (http://[^\s,]+)|gRPC on ([^\s,]+)")
QUIET = re.compile(r" INFO | loading \S+ with |^$")


def take_terminal():
    """Make standard input the terminal of this process, which then gets SIGHUP when the terminal closes."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Started:
    """A process of ours, with a folder of its own for temporary files."""

    def __init__(self, *command, store, terminal=None, **environment):
        """`terminal`: a file descriptor of a terminal that becomes the process's own; None: it has none."""
        self.temporary = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
        own = {"TMPDIR": str(self.temporary), "XDG_RUNTIME_DIR": str(self.temporary), "OLLAMA_MODELS": str(store)}
        own |= {"OLLAMA_HOST": "127.0.0.1:0", "PUNA_GRPC_HOST": "127.0.0.1:0", "OLLAMA_NUM_PARALLEL": "9"}
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [*PUNA, *command],
            env=os.environ | own | environment,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            preexec_fn=None if terminal is None else take_terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.url = self.grpc = None

    def ready(self):
        """Wait until a server serves."""
        line = self.process.stdout.readline()
        found = ADDRESSES.findall(line)
        assert found, line + self.process.stderr.read()
        self.url = next((rest for rest, _ in found if rest), None)
        self.grpc = next((rpc for _, rpc in found if rpc), None)
        return self

    def signal(self, number):
        """Send a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def ended(self, seconds=30):
        """Wait for the end; return the status and what was said, after seeing that nothing is left."""
        family = [pid for pid, parent in parents().items() if parent == self.process.pid]
        try:
            said = "".join(self.process.communicate(timeout=seconds))
        finally:
            self.close()
        wait_until(lambda: not set(family) & parents().keys(), 10)
        assert self.left == [], f"folders are left: {self.left}"
        return self.process.returncode, [line for line in said.splitlines() if not QUIET.search(line)]

    def close(self):
        """End it whatever has happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        if self.temporary.exists():
            self.left = [path.name for path in self.temporary.iterdir()]
            shutil.rmtree(self.temporary)


def stocked(store):
    """Make a store with a model that does what the prompt says."""
    server = Started("serve", store=store).ready()
    command = ["create", "scripted", "--file", str(MODELS / "scripted.gguf"), "--backend", "scripted"]
    command += ["--format", "scripted"]
    subprocess.run([*PUNA, *command], env=os.environ | {"PUNA_GRPC_HOST": server.grpc}, check=True, capture_output=True)
    server.signal(signal.SIGTERM)
    assert server.ended() == (0, [])
    return store
