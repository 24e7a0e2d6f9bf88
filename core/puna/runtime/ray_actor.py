"""The actor of a host on a Ray cluster: starts a node on its machine, and ends it.

It runs in a worker process of Ray and imports nothing but the standard library and Ray. The node that it starts belongs
to no process group of Ray and is no child of the worker. Ray kills these with the worker, also when the worker ends
because the cluster's head has died; see `puna.node.supervision`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

READY: Final = "node on "
"""The ready line of `puna node run` ends with this and the address."""
# The shell ends at once, so that the node is no child of this process. A background command would lose its input.
DETACH: Final = 'exec 3<&0; "$@" <&3 3<&- &'
AGENT: Final = "RAY_RAYLET_PID"
"""The variable in which Ray tells a worker the process id of the machine's agent, the raylet."""

LEAVE_SECONDS: Final = 10.0
"""How long this process may take to end in order."""


def _take_priority() -> None:
    """Take the priority of the machine's agent, if the system allows it; hosts inherit it.

    Ray lowers that of its workers. A host would get little of a processor that other programs use too.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, int(os.environ.get(AGENT) or os.getppid())))


class HostActor:
    """Runs the node of one host."""

    def __init__(self) -> None:
        self._node: subprocess.Popen[str] | None = None

    def place(self) -> dict[str, Any]:
        """Return the id, the address and the GPUs of this actor's machine, and the address of the head.

        They are as Ray knows them. The GPUs are those that this actor has something of.
        """
        import ray

        context = ray.get_runtime_context()
        return {
            "node_id": context.get_node_id(),
            "host": ray.util.get_node_ip_address(),
            "gpu_ids": [str(each) for each in ray.get_gpu_ids()],
            "head": context.gcs_address,
        }

    def start(self, host: str, head: str, certificate: Mapping[str, str], lease_seconds: float) -> str:
        """Start a node that listens on an address of this machine; return "host:port". Raises RuntimeError.

        `head` is the address of the cluster's head. `certificate` has the texts of the node's certificate, its key and
        the authority's certificate, by file name.
        """
        listen = f"[{host}]:0" if ":" in host else f"{host}:0"
        command = [sys.executable, "-m", "puna", "node", "run", "--supervised", "--exit-with-core"]
        command += ["--listen", listen, "--lease", str(lease_seconds)]
        # Ray limits OpenMP to the actor's CPUs, which are a guess. The backend chooses its threads by the machine.
        _take_priority()
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        self._node = subprocess.Popen(
            ["/bin/sh", "-c", DETACH, "sh", *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        told = {
            "certificate": dict(certificate),
            "agent": int(os.environ.get(AGENT) or os.getppid()),
            "head": head,
        }
        self._node.stdin.write(json.dumps(told) + "\n")
        # From now on the open pipe tells the node that this process lives.
        self._node.stdin.flush()
        line = self._node.stdout.readline()
        if READY not in line:
            raise RuntimeError(
                f"the node has not started; the log of process {os.getpid()} in Ray's logs has the cause"
            )
        return line.rpartition(READY)[2].strip()

    def wait(self) -> None:
        """Wait until the node has ended."""
        assert self._node is not None
        assert self._node.stdout is not None
        # The node writes nothing after its ready line, and its hosts do not have its output.
        self._node.stdout.read()
        self._node.wait()

    def leave_with_node(self) -> None:
        """End this actor once its node has ended, whether or not anybody waits for it."""

        def leave() -> None:
            self.wait()
            import ray

            with suppress(RuntimeError, ray.exceptions.RayError):
                ray.get_runtime_context().current_actor.leave.remote()
            # The cluster may be in no state to run a call.
            time.sleep(LEAVE_SECONDS)
            os._exit(0)

        threading.Thread(target=leave, name="node", daemon=True).start()

    def leave(self) -> None:
        """End this actor in the way that Ray counts as intended."""
        import ray

        ray.actor.exit_actor()
