"""The launcher of hosts on a Ray cluster, with a stub in place of Ray. tests/ray has real clusters."""

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from puna.backend import SequenceRequest, TextDelta
from puna.plugins import Plugin
from puna.runtime import ray_connection, ray_launcher
from puna.runtime.errors import NodeError, NodeLostError
from puna.runtime.host_loading import HostLoader
from puna.runtime.launcher import HostRequirements, HostResources
from puna.runtime.pool import ModelPool
from puna.runtime.ray_connection import ClusterFullError
from puna.runtime.ray_launcher import RayLauncher
from puna.settings import Settings

STUB = (sys.executable, str(Path(__file__).with_name("ray_stub.py")))
SCRIPTED = Path(__file__).parents[2] / "plugins/scripted"
NEEDED = HostRequirements(backend=Plugin(name="b"), label="m", ready_seconds=1.0)


@pytest.fixture
def heard(tmp_path):
    """Returns the lines that stubs have heard."""
    path = tmp_path / "log"
    path.touch()
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def head():
    """The address of a head that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
async def launch(short_path, tmp_path, monkeypatch, head):
    """Makes a launcher with a stub."""
    made = []
    monkeypatch.setenv("RAY_STUB_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SCRIPTED), *sys.path]))
    monkeypatch.setenv("RAY_STUB_HEAD", head)
    numbers = iter(range(1000))

    async def launch(mode=""):
        monkeypatch.setenv("RAY_STUB", mode)
        made.append(RayLauncher(lambda: short_path / str(next(numbers)), 20.0, 7.0, STUB))
        return made[-1]

    yield launch
    for each in made:
        await each.aclose()


async def text(model, prompt):
    events = [event async for event in model.generate(SequenceRequest(prompt=prompt))]
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what other processes do has no event
            await asyncio.sleep(0.02)


def runs(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_a_host_runs_in_a_node_that_an_actor_has_started(launch, registry, want, tmp_path, heard):
    launcher = await launch()
    file = tmp_path / "model.file"
    file.write_bytes(bytes(80))
    model = await HostLoader(launcher).load(
        registry.get("scripted"),
        replace(want().spec, path=str(file)),
        report=lambda _: None,
        stall_seconds=60.0,
        on_death=lambda: None,
    )
    try:
        assert await text(model, "a b") == "ab"
        assert (launcher.machines, launcher.free_bytes()) == (2, 9000)
        (status,) = launcher.nodes()
        assert status.hosts == 1
        # The process that uses Ray is not needed for what runs.
        os.kill(heard()[0]["pid"], signal.SIGKILL)
        await until(lambda: not launcher._connection.usable)
        assert await text(model, "c") == "c"
    finally:
        await model.aclose()
    assert launcher.nodes() == []
    assert list(heard()[1]["start"]["certificate"]) == ["tls.key", "tls.crt", "ca.crt"]


async def test_hosts_of_one_base_go_to_one_machine_while_it_has_room(launch, heard):
    launcher = await launch()
    await launcher._connect()
    launcher._remember("weights", ray_connection.PlacedNode(key=1, node_id="n1", address=""))

    def near(**resources):
        needed = replace(NEEDED, base="weights", resources=HostResources(**resources))
        return launcher._wanted(needed, 1)["near"]

    assert near(cpus=1.0, memory_bytes=500) == "n1"
    assert near(memory_bytes=5000) == ""
    assert launcher._wanted(NEEDED, 1)["near"] == ""


async def test_there_is_no_room_where_hosts_take_it_all(launch):
    launcher = await launch()
    connection = await launcher._connect()
    small, large = HostResources(cpus=2.0, gpus=1.0, memory_bytes=1000), HostResources(cpus=1.0, memory_bytes=9001)
    connection.told = connection.nodes[:1]
    assert launcher.has_room(small)
    connection.told = (replace(connection.nodes[0], free=HostResources(cpus=1.0, memory_bytes=1000)),)
    # Nobody could end for it, or it would not help.
    assert launcher.has_room(small)
    launcher._nodes[1] = Closed()
    assert not launcher.has_room(small)
    assert launcher.has_room(large)
    connection.note_free("n1", HostResources(cpus=1.0))
    assert launcher.has_room(small)


class Closed:
    async def aclose(self):
        pass


async def test_gpus_are_asked_for_where_there_are_some(launch):
    launcher = await launch()
    connection = await launcher._connect()
    needed = replace(NEEDED, resources=HostResources(cpus=3.0, gpus=1.0, memory_bytes=7))
    wanted = launcher._wanted(needed, 1)
    assert (wanted["cpus"], wanted["gpus"], wanted["memory_bytes"], wanted["placement_seconds"]) == (3.0, 0.0, 7, 7.0)
    connection.told = (replace(connection.nodes[0], total=HostResources(gpus=2.0)),)
    assert launcher._wanted(needed, 1)["gpus"] == 1.0


async def test_the_gpus_of_running_hosts_are_told_apart(launch):
    """Of each of two GPUs 0.4 is free, so that another 0.6 has no room."""
    launcher = await launch()
    connection = await launcher._connect()
    total = HostResources(gpus=2.0, cpus=8.0, memory_bytes=9)
    connection.told = (replace(connection.nodes[0], total=total, free=replace(total, gpus=0.8)),)
    for number in range(2):
        placed = ray_connection.PlacedNode(key=number, node_id="n1", address="", gpu_ids=(str(number),))
        launcher._nodes[number], launcher._placed[number] = Closed(), (placed, 0.6)
    assert not launcher.has_room(HostResources(gpus=0.6))
    assert launcher.has_room(HostResources(gpus=0.4))


async def test_a_machine_is_named_only_where_gpus_differ(launch):
    launcher = await launch()
    connection = await launcher._connect()
    needed = replace(NEEDED, base="w", resources=HostResources(memory_bytes=7, gpus=1.0, gpu_bytes=25 << 30))
    launcher._remember("w", ray_connection.PlacedNode(key=1, node_id="n1", address=""))

    def wanted(*sizes):
        room = HostResources(gpus=2.0, memory_bytes=9)
        connection.told = tuple(
            replace(each, gpu_bytes=size << 30, total=room, free=room)
            for each, size in zip(connection.nodes, sizes, strict=True)
        )
        found = launcher._wanted(needed, 1)
        return found["gpus"], found["only"], found["near"]

    assert wanted(24, 24) == (2.0, [], "n1")
    assert wanted(0, 0) == (1.0, [], "n1")
    assert wanted(24, 50) == (0.5, ["n2"], "")


async def test_a_process_that_has_ended_is_replaced_for_the_same_cluster(launch, heard, head):
    launcher = await launch("full")
    with pytest.raises(ClusterFullError, match="Ray: no room"):
        await launcher.start(NEEDED)
    os.kill(heard()[0]["pid"], signal.SIGKILL)
    await until(lambda: not launcher._connection.usable)
    with pytest.raises(ClusterFullError):
        await launcher.start(NEEDED)
    assert [each["address"] for each in heard() if "address" in each] == ["", head]


async def test_a_head_that_was_gone_is_connected_again_and_no_load_waits_long(launch, heard, tmp_path, monkeypatch):
    back = tmp_path / "back"
    monkeypatch.setattr(ray_launcher, "RECONNECT_SECONDS", 0.2)
    monkeypatch.setenv("RAY_STUB_OPEN", str(back))
    monkeypatch.setattr(ray_connection, "CONNECT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("RAY_STUB_HEAD", f"127.0.0.1:{port}")
        launcher = await launch("full")
        await launcher._connect()
    os.kill(heard()[0]["pid"], signal.SIGKILL)
    # The next process starts at once, and waits for the head. Starts do not.
    await until(lambda: len(heard()) == 2)
    with pytest.raises(NodeError, match=rf"Ray's head 127.0.0.1:{port} cannot be reached: Connection refused"):
        await launcher.start(NEEDED)
    monkeypatch.setattr(ray_launcher, "UNREACHED_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(NodeError, match=rf"Ray's head 127.0.0.1:{port} was gone, and the connection .* not open"):
            await launcher.start(NEEDED)
        # The next one has no time of its own, since loads may follow one another.
        monkeypatch.setattr(ray_launcher, "RECONNECT_SECONDS", 1000.0)
        with pytest.raises(NodeError, match="not open again yet"):
            await launcher.start(NEEDED)
        await asyncio.sleep(2.0)  # for the head itself there is no time
        back.touch()
        await until(lambda: launcher._connection.usable)
        with pytest.raises(ClusterFullError):
            await launcher.start(NEEDED)
    assert len([each for each in heard() if "pid" in each]) == 2


async def test_a_load_whose_process_ends_is_tried_with_the_next_one(launch):
    """The process ends with the raylet of its machine, of which the others know nothing."""
    launcher = await launch("end once")
    with pytest.raises(NodeLostError, match="has ended"):
        await launcher.start(NEEDED)
    await launcher._connect()
    assert launcher._connection.usable


async def test_a_head_that_is_silent_is_an_error_and_no_hang(launch, head, monkeypatch):
    monkeypatch.setattr(ray_connection, "SILENT_SECONDS", 0.5)
    launcher = await launch("silent")
    await launcher._connect()
    with pytest.raises(NodeError, match=rf"Ray's head {head} does not answer: loaded models are served"):
        await launcher.start(NEEDED)


async def test_a_start_that_is_given_up_is_ended(launch, heard):
    launcher = await launch("answer")
    starting = asyncio.create_task(launcher.start(NEEDED))
    await until(lambda: any("start" in each for each in heard()))
    starting.cancel()
    await asyncio.wait({starting})
    await until(lambda: {"id": 1, "end": True} in heard())


@pytest.mark.parametrize(
    ("mode", "error"),
    [("refuse", "Ray cannot be used: no cluster here"), ("nonsense", "has ended|nonsense")],
)
async def test_a_connection_that_fails_is_told(launch, mode, error):
    launcher = await launch(mode)
    for _ in range(2):
        with pytest.raises(NodeError, match=error):
            await launcher.start(NEEDED)


async def test_a_load_waits_shortly_for_an_attempt_to_connect_after_one_that_failed(launch, tmp_path, monkeypatch):
    launcher = await launch("refuse")
    with pytest.raises(NodeError, match="no cluster here"):
        await launcher.start(NEEDED)
    monkeypatch.setattr(ray_launcher, "RECONNECT_SECONDS", 0.2)
    monkeypatch.setenv("RAY_STUB", "slow")
    back = tmp_path / "back"
    monkeypatch.setenv("RAY_STUB_OPEN", str(back))
    with pytest.raises(NodeError, match="no cluster here"):
        await launcher.start(NEEDED)
    back.touch()
    await launcher._connect()
    assert launcher._connection.usable


async def test_the_machine_of_a_host_is_told_before_the_host_starts(launch, heard):
    """The head may tell later what is free there. Until then no other host is promised the same."""
    launcher, placed = await launch("placed"), asyncio.Event()
    taken = HostResources(cpus=1.0, memory_bytes=600)
    starting = asyncio.create_task(launcher.start(replace(NEEDED, resources=taken, on_placed=placed.set)))
    await placed.wait()
    connection = launcher._connection
    assert connection.nodes[0].free == HostResources(cpus=1.0, memory_bytes=400)
    assert connection.nodes[1].free == connection.told[1].free
    # The head has heard of it, or of even less.
    connection.told = (replace(connection.told[0], free=HostResources(cpus=1.0, memory_bytes=300)), connection.told[1])
    assert connection.nodes[0].free == HostResources(cpus=1.0, memory_bytes=300)
    connection.note_free("n1", HostResources(cpus=1.0))
    assert connection.nodes[0].free.cpus == 2.0
    starting.cancel()
    await asyncio.wait({starting})


async def test_what_a_host_has_taken_is_the_heads_to_tell_after_a_while(launch, monkeypatch):
    monkeypatch.setattr(ray_connection, "TOLD_SECONDS", 0.0)
    launcher = await launch()
    await launcher._connect()
    launcher._connection.note_taken("n1", HostResources(cpus=1.0), launcher._connection.told)
    assert launcher._connection.nodes == launcher._connection.told


async def test_what_a_host_has_taken_counts_once_if_the_head_tells_first(launch):
    launcher = await launch()
    await launcher._connect()
    connection, before = launcher._connection, launcher._connection.nodes
    free = before[0].free
    told = replace(before[0], free=replace(free, cpus=free.cpus - 1))
    connection.told = (told, *before[1:])
    connection.note_taken("n1", HostResources(cpus=1.0), before)
    assert connection.nodes[0].free.cpus == free.cpus - 1
    connection.note_taken("n1", HostResources(cpus=1.0), connection.nodes)
    assert connection.nodes[0].free.cpus == free.cpus - 2


async def test_a_closed_launcher_ends_its_process(launch, heard):
    launcher = await launch()
    await launcher._connect()
    await launcher.aclose()
    assert not runs(heard()[0]["pid"])


async def test_without_ray_the_server_does_not_start(registry, monkeypatch):
    monkeypatch.setattr(ray_launcher.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="needs the extra `ray`") as raised:
        await ModelPool(registry, Settings(launcher="ray")).__aenter__()
    assert raised.value.errno == errno.ENOENT
