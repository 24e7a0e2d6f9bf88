"""The process through which a core uses a Ray cluster: a driver, in Ray's terms.

Theory. Ray ends the process of a driver when the driver's raylet dies or the cluster's head has been gone for a minute.
It also installs signal handlers, configures logging, and its calls block. So it has a process of its own, and neither
its end nor its delays touch the core, which starts another one when it needs one.

The first argument is the address of the cluster's head; empty: Ray's settings name it. With `wait` as the second one
the process waits until the head accepts connections. Ray is imported by then, which takes seconds.

The core writes requests to standard input, a line of JSON each, and reads answers and events from standard output:

    {"id": 1, "start": {...}}    start the node of a host; see below for the answer
    {"id": 1, "end": true}       end it, or give up its start; no answer
    {"id": 1, "placed": ...}     Ray has chosen this machine, and the node starts there
    {"id": 1, "address": ...}    the node listens on "host:port", on the machine `node_id`, and may use `gpu_ids`
    {"id": 1, "error": ...}      it has not started; with `full` if no machine has room
    {"event": "reached"}         the head accepts connections, which the process has waited for
    {"event": "connected"}       with the address of the cluster, and whether this process has started the cluster
    {"event": "failed"}          with an error: there is no cluster. The process ends
    {"event": "nodes"}           with the machines and what is free on each; written when it changes
    {"event": "alive"}           the head has answered; every REPORT_SECONDS in between

Actors are detached: they outlive this process, and end with their nodes, which end with the lease of the core. When the
input ends, actors whose nodes have not started are killed; nobody else knows of them.
"""

import json
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any, Final

import ray
from ray._private import ray_constants, services
from ray._private.authentication import authentication_token_setup
from ray._private.state import available_resources_per_node  # there is no public function for a single machine
from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, GcsClient, get_authentication_mode
from ray.exceptions import ActorDiedError, AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from puna.runtime.gpu_memory import smallest_bytes
from puna.runtime.ray_actor import HostActor

REPORT_SECONDS: Final = 0.5
"""Pause between two questions to the head."""
NAMESPACE: Final = "puna"
LOCAL_OBJECT_BYTES: Final = 100 << 20
"""Size of the object store of a cluster that this process starts. Nothing of a model passes through it."""
NODE_ID: Final = "ray.io/node-id"
"""The label by which Ray names machines."""
GPU_SECONDS: Final = 15.0
"""How long the first listing waits for what machines tell of their GPUs."""
START_SECONDS: Final = 90.0
"""How long a node may take from its actor's start until it listens."""
LOOK_SECONDS: Final = 1.0
"""How long an actor may take to run until it is asked whether the machines are there that the head counts as alive."""
AGENT_SECONDS: Final = 1.0
"""How long the agent of a machine may take to accept a connection."""
AGENTS_AT_ONCE: Final = 64
"""Number of machines that are asked at once."""
PING_SECONDS: Final = 2.0
"""How long the head may take to accept a connection."""
WAIT_SECONDS: Final = 0.2
"""Pause between two attempts to reach a head that is waited for."""
ATTEMPTS: Final = 5
"""Number of actors that are tried for a host."""
RETRY_SECONDS: Final = 0.5
"""Pause between two of them."""
ERRORS: Final = (RayError, RuntimeError, ValueError, ConnectionError, OSError, TimeoutError)
"""The errors that Ray's functions raise."""


class Driver:
    """Does what the lines of the input say."""

    def __init__(self, lines: IO[str], output: IO[str]) -> None:
        self._lines = lines
        self._output = output
        self._requests: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._actors: dict[int, Any] = {}
        """Actors that were asked for, by the ids of the requests, until they are ended."""
        self._starting: set[int] = set()

    def run(self, address: str, *, wait: bool = False) -> None:
        """Connect to a cluster and serve until the input ends. Without an address Ray's settings name the cluster.

        `wait` begins with waiting until the head accepts connections.
        """
        threading.Thread(target=self._read, name="read", daemon=True).start()
        if wait:
            while not _accepts(address):
                time.sleep(WAIT_SECONDS)
            self._write({"event": "reached"})
        try:
            local = _connect(address)
        except ERRORS as error:
            self._write({"event": "failed", "error": _text(error)})
            return
        self._write({"event": "connected", "address": ray.get_runtime_context().gcs_address, "local": local})
        threading.Thread(target=self._report, name="report", daemon=True).start()
        while (line := self._requests.get()) is not None:
            request = json.loads(line)
            if "start" in request:
                self._starting.add(request["id"])
                arguments = (request["id"], request["start"])
                threading.Thread(target=self._start, args=arguments, name="start", daemon=True).start()
            else:
                self._end(request["id"])
        for each in list(self._starting):
            self._end(each)
        # It ends a cluster that this process has started.
        ray.shutdown()

    def _read(self) -> None:
        """Pass lines on. If the input ends while there is no connection, end the process, for connecting may hang."""
        for line in self._lines:
            self._requests.put(line)
        if not ray.is_initialized():
            os._exit(1)
        self._requests.put(None)

    def _start(self, key: int, wanted: Mapping[str, Any]) -> None:
        try:
            placed = self._placed(key, wanted)
            if placed is None:
                self._write({"id": key, "error": _full(wanted), "full": True})
                self._end(key)
                return
            actor, found = placed
            self._write({"id": key, "placed": found["node_id"]})
            start = actor.start.remote(found["host"], found["head"], wanted["certificate"], wanted["lease_seconds"])
            if not _done(start, START_SECONDS):
                raise RuntimeError(f"the node has not started within {START_SECONDS:g} s")
            actor.leave_with_node.remote()
            self._starting.discard(key)
            place = {"node_id": found["node_id"], "gpu_ids": found["gpu_ids"]}
            self._write({"id": key, "address": ray.get(start), **place})
        except ERRORS as error:
            self._write({"id": key, "error": _text(error)})
            self._end(key)

    def _placed(self, key: int, wanted: Mapping[str, Any]) -> "tuple[Any, Mapping[str, Any]] | None":
        """Return an actor that runs, and its machine; None if there is no room. Raises what Ray raises.

        Ray may choose a machine that has just gone, of which the head hears after 15 s. So another actor follows one
        that has never run, and one that does not run soon if a machine is found to be gone, then on the others.
        """
        deadline = time.monotonic() + wanted["placement_seconds"]
        gone: set[str] = set()
        for attempt in range(ATTEMPTS):
            actor = ray.remote(HostActor).options(**_options(wanted, attempt, gone)).remote()
            self._actors[key] = actor
            if key not in self._starting:
                raise RuntimeError("the start was given up")
            place = actor.place.remote()
            if not _done(place, min(LOOK_SECONDS, wanted["placement_seconds"])):
                new = _gone_machines() - gone if attempt < ATTEMPTS - 1 else set()
                if new and not _done(place, 0):
                    gone |= new
                    self._leave_agent(gone)
                    ray.kill(actor)
                    continue
                if not _done(place, max(deadline - time.monotonic(), 0)):
                    return None
            try:
                return actor, ray.get(place)
            except ActorDiedError:
                if attempt == ATTEMPTS - 1 or key not in self._starting:
                    raise
                time.sleep(RETRY_SECONDS)
        return None

    def _leave_agent(self, gone: "set[str]") -> None:
        """End this process if its own agent is gone and its machine has another one, which the next process uses.

        Ray asks a driver's own agent for places until the head gives that up.
        """
        own = ray.get_runtime_context().get_node_id()
        hosts = {each["NodeID"]: each["NodeManagerAddress"] for each in ray.nodes() if each["Alive"]}
        if own in gone and any(hosts[each] == hosts.get(own) for each in hosts.keys() - gone):
            for each in list(self._starting):
                self._end(each)
            os._exit(1)

    def _end(self, key: int) -> None:
        """Kill an actor. Its node ends, if it runs; see `puna.node.supervision`."""
        self._starting.discard(key)
        actor = self._actors.pop(key, None)
        if actor is not None:
            with suppress(*ERRORS):
                ray.kill(actor)

    def _report(self) -> None:
        told: list[dict[str, Any]] | None = None
        gpus = _GpuSurvey()
        while True:
            with suppress(*ERRORS):
                nodes = gpus.noted(_nodes(), GPU_SECONDS if told is None else 0.0)
                self._write({"event": "alive"} if nodes == told else {"event": "nodes", "nodes": nodes})
                told = nodes
            time.sleep(REPORT_SECONDS)

    def _write(self, message: Mapping[str, Any]) -> None:
        with self._writing, suppress(OSError):
            self._output.write(json.dumps(message) + "\n")
            self._output.flush()


class _GpuSurvey:
    """The memory of the machines' GPUs. Each machine is asked once."""

    def __init__(self) -> None:
        self._asked: dict[str, ray.ObjectRef[int]] = {}
        self._known: dict[str, int] = {}

    def noted(self, nodes: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
        """Return the nodes with what is known, after at most `seconds` of waiting for answers."""
        for key in [each["id"] for each in nodes if each["total"]["gpus"]]:
            if key not in self._known and key not in self._asked:
                place = NodeAffinitySchedulingStrategy(key, soft=False)
                task = ray.remote(smallest_bytes).options(num_cpus=0, max_retries=0, scheduling_strategy=place)
                self._asked[key] = task.remote()
        if self._asked:
            ray.wait(list(self._asked.values()), num_returns=len(self._asked), timeout=seconds)
        for key, answer in list(self._asked.items()):
            if _done(answer, 0):
                del self._asked[key]
                self._known[key] = _answer(answer)
        return [{**each, "gpu_bytes": self._known.get(each["id"], 0)} for each in nodes]


def _answer(answer: "ray.ObjectRef[int]") -> int:
    """Return what a machine has told; 0 if it cannot."""
    try:
        return int(ray.get(answer))
    except ERRORS:
        return 0


def _connect(address: str) -> bool:
    """Connect to a cluster; return whether it was started for this purpose. Raises what Ray raises."""
    quiet = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    # Not "auto", which would also find clusters of other people on this machine.
    head = services.canonicalize_bootstrap_address(address or None)
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        if head is not None:
            _ping(head)
            _check_token(head)
            ray.init(address=head, **quiet)
            return False
    except ConnectionError:
        # The last cluster that was started on this machine may have ended.
        if named:
            raise
    # Ray has no setting that keeps a cluster on the loopback interface, except this one for other systems.
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(address="local", include_dashboard=False, object_store_memory=LOCAL_OBJECT_BYTES, **quiet)
    return True


def _check_token(head: str) -> None:
    """Raise ConnectionError if the cluster wants a token that this process does not have.

    Ray itself would try for 20 seconds, or end the process, and not name the reason.
    """
    # `ray start --head` wants the token as soon as there is one, without being told.
    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    where = "it is in ~/.ray/auth_token of the head, and belongs there on each machine or into RAY_AUTH_TOKEN"
    token = AuthenticationTokenLoader.instance()
    if get_authentication_mode() == AuthenticationMode.TOKEN and not token.has_token(ignore_auth_mode=True):
        raise ConnectionError(f"RAY_AUTH_MODE is `token`, and there is no token: {where}")
    try:
        GcsClient(address=head)
    except AuthenticationError:
        mode = "" if os.environ.get("RAY_AUTH_MODE") == "token" else ", with RAY_AUTH_MODE=token"
        raise ConnectionError(f"the head {head} wants the token of its cluster: {where}{mode}") from None


def _accepts(address: str) -> bool:
    try:
        _ping(address)
    except ConnectionError:
        return False
    return True


def _ping(address: str) -> None:
    """Raise ConnectionError if nothing accepts connections at an address, for Ray would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PING_SECONDS).close()
    except OSError as error:
        reason = error.strerror or f"no answer within {PING_SECONDS:g} s"
        raise ConnectionError(f"the head {address} cannot be reached: {reason}") from None


def _options(wanted: Mapping[str, Any], attempt: int, gone: "set[str]") -> dict[str, Any]:
    """Return the options of an actor, which does not run on machines that are gone."""
    near, only = wanted["near"], _labels(wanted["only"], gone)
    # An affinity that is soft leaves for any machine, also for one that the labels exclude.
    strategy = NodeAffinitySchedulingStrategy(near, soft=True) if near and not only else "SPREAD"
    return {
        "name": f"{wanted['name']}-{attempt}",
        "lifetime": "detached",
        "max_restarts": 0,
        "max_concurrency": 4,
        "num_cpus": wanted["cpus"],
        "num_gpus": wanted["gpus"],
        "memory": wanted["memory_bytes"],
        "scheduling_strategy": strategy,
        "label_selector": {NODE_ID: only} if only else None,
    }


def _labels(only: Sequence[str], gone: "set[str]") -> str:
    """Return the expression for these machines, or all if there are none, without those that are gone."""
    # An expression without a machine would let in all.
    if left := [each for each in only if each not in gone] or list(only):
        return f"in({','.join(left)})"
    return f"!in({','.join(sorted(gone))})" if gone else ""


def _gone_machines() -> "set[str]":
    """Return the machines that the head counts as alive and whose agents accept no connection."""

    def accepts(node: Mapping[str, Any]) -> bool:
        try:
            socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), AGENT_SECONDS).close()
        except OSError:
            return False
        return True

    alive = [each for each in ray.nodes() if each["Alive"]]
    with ThreadPoolExecutor(AGENTS_AT_ONCE) as asking:
        return {each["NodeID"] for each, there in zip(alive, asking.map(accepts, alive), strict=True) if not there}


def _full(wanted: Mapping[str, Any]) -> str:
    """Return the error of a host for which there is no room."""
    needs = f"{wanted['cpus']:g} CPUs, {wanted['gpus']:g} GPUs and {wanted['memory_bytes'] / 1e9:.1f} GB of memory"
    return f"no machine of the cluster has had {needs} free for {wanted['placement_seconds']:g} s"


def _nodes() -> list[dict[str, Any]]:
    """Return the machines of the cluster, with the resources that each has and those that are free."""
    free = available_resources_per_node()
    return [
        {
            "id": each["NodeID"],
            "host": each["NodeManagerAddress"],
            "free": _resources(free.get(each["NodeID"], {})),
            "total": _resources(each["Resources"]),
        }
        for each in ray.nodes()
        if each["Alive"]
    ]


def _resources(found: Mapping[str, float]) -> dict[str, float]:
    return {
        "cpus": found.get("CPU", 0.0),
        "gpus": found.get("GPU", 0.0),
        "memory_bytes": int(found.get("memory", 0.0)),
    }


def _done(reference: "ray.ObjectRef[Any]", seconds: float) -> bool:
    """Return whether a call of an actor ends within `seconds`."""
    return bool(ray.wait([reference], timeout=seconds)[0])


def _text(error: BaseException) -> str:
    """Return the last line of an error of Ray, which has the cause. The others are a traceback or advice."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if isinstance(error, RayError) and lines else " ".join(lines)) or type(error).__name__


def main() -> None:
    """Serve the core that has started this process."""
    # Ray prints lines too, which must not reach the core as answers.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    Driver(sys.stdin, output).run(sys.argv[1] if len(sys.argv) > 1 else "", wait="wait" in sys.argv[2:])
    # Threads may still wait for the cluster.
    os._exit(0)


if __name__ == "__main__":
    main()
