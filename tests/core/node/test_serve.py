"""Models on nodes: the core's side and the node's side in one process, with real host processes and real TLS."""

import asyncio
import os
import signal
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from puna.backend import InvalidRequestError, SequenceRequest, TextDelta
from puna.errors import BackendCrashedError, LoadFailedError
from puna.events import NodeLost, subscribe
from puna.node.fetching import Fetch
from puna.process import cluster_certificates as certificates
from puna.runtime.errors import HostFailedError, HostKilledError, NodeError, NodeLostError
from puna.runtime.heartbeat import HangTimeouts
from puna.runtime.launcher import NodeState

CLEAR_SECONDS = 3.0
"""How long an error may take."""


@pytest.fixture
def lost():
    """The events of nodes that were lost."""
    heard = []
    stop = subscribe(NodeLost, heard.append)
    yield heard
    stop()


async def text(model, prompt):
    async with aclosing(model.generate(SequenceRequest(prompt=prompt))) as events:
        return [event.text async for event in events if isinstance(event, TextDelta)]


async def processes(node):
    """Process ids of the hosts that a node runs."""
    return [each.process.pid for each in node.lease._lease.hosts.values()]


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def test_a_model_on_a_node_does_what_one_on_this_machine_does(run_node, make_node, load_on):
    model = await load_on(make_node((await run_node()).address))
    answers = await asyncio.gather(*(text(model, f"{number} @wait 0.02 x") for number in range(4)))
    assert answers == [[str(number), "x"] for number in range(4)]
    assert await model.tokenize("ab", add_special=False, parse_special=False) == [97, 98]
    assert len(await model.embed(["a", "b"])) == 2
    assert model.pid == 0
    with pytest.raises(InvalidRequestError):
        await text(model, "@refuse")


async def test_a_cancel_reaches_the_host(run_node, make_node, load_on, journal):
    model = await load_on(make_node((await run_node()).address))
    async with aclosing(model.generate(SequenceRequest(prompt="@endless"))) as events:
        async for event in events:
            assert isinstance(event, TextDelta)
            break
    await journal.until("stopped")


async def test_large_messages_pass_in_both_directions(run_node, make_node, load_on):
    model = await load_on(make_node((await run_node()).address))
    long = "x" * 3_000_000
    assert len(await model.tokenize(long, add_special=False, parse_special=False)) == len(long)
    assert await text(model, long) == [long]


async def test_a_model_that_is_closed_ends_its_host(run_node, make_node, load_on, journal):
    running = await run_node()
    node = make_node(running.address)
    model = await load_on(node)
    (pid,) = await processes(running)
    await model.aclose()
    await journal.until("closed")
    await until(lambda: not runs(pid))
    assert node.hosts == 0


async def test_a_host_that_crashes_is_told_with_its_last_words(run_node, make_node, load_on):
    deaths = []
    model = await load_on(make_node((await run_node()).address), on_death=lambda: deaths.append(1))
    with pytest.raises(BackendCrashedError, match=r"SIGKILL.*\(on 127.0.0.1:\d+\)"):
        await text(model, "a @crash SIGKILL")
    assert deaths == [1]


async def test_a_load_that_is_refused_or_crashes_is_told(run_node, make_node, load_on):
    node = make_node((await run_node()).address)
    with pytest.raises(LoadFailedError, match="unable to load model"):
        await load_on(node, load="refuse")
    with pytest.raises(HostFailedError, match="has terminated"):
        await load_on(node, load="crash")
    with pytest.raises(HostKilledError, match=r"SIGKILL.*\(on 127.0.0.1:\d+\)"):
        await load_on(node, load="kill")
    assert node.hosts == 0


async def test_a_host_that_is_killed_before_it_listens_is_told(run_node, make_node, load_on, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    node = make_node((await run_node()).address)
    with pytest.raises(HostKilledError, match=r"SIGKILL.*\(on 127.0.0.1:\d+\)"):
        await load_on(node)
    assert node.hosts == 0


async def test_a_host_that_is_killed_while_its_files_are_fetched_is_told(run_node, make_node, load_on, monkeypatch):
    running = await run_node()
    fetch = Fetch.run

    async def kill(self, files):
        for pid in await processes(running):
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(60)
        await fetch(self, files)

    monkeypatch.setattr(Fetch, "run", kill)
    with pytest.raises(HostKilledError, match="SIGKILL"):
        await load_on(make_node(running.address))


async def test_a_given_up_load_ends_the_host(run_node, make_node, load_on):
    running = await run_node()
    loading = asyncio.create_task(load_on(make_node(running.address), load="stall"))
    await until(lambda: running.lease._lease and running.lease._lease.hosts)
    (pid,) = await processes(running)
    loading.cancel()
    await asyncio.wait({loading})
    await until(lambda: not runs(pid))


async def test_hosts_are_spread_over_nodes(run_node, make_node, load_on):
    nodes = [make_node((await run_node()).address) for _ in range(2)]
    for _ in range(4):
        await load_on(*nodes)
    assert [each.hosts for each in nodes] == [2, 2]


async def test_a_node_that_is_down_is_passed_over(run_node, make_node, load_on):
    up, down = make_node((await run_node()).address), make_node("127.0.0.1:1")
    model = await load_on(down, up)
    assert await text(model, "a") == ["a"]
    with pytest.raises(NodeError, match=r"no node can run the model: 127.0.0.1:1 cannot be reached: "):
        await load_on(down)


async def test_a_missing_file_is_named(run_node, make_node, load_on, want):
    node = make_node((await run_node()).address)
    with pytest.raises(NodeError, match=r"a file of the model cannot be read: .*/nowhere"):
        await load_on(node, spec=want("nowhere").spec)


async def test_several_files_lie_in_a_folder_of_the_node(run_node, make_node, load_on, want, file, tmp_path):
    running = await run_node()
    node = make_node(running.address)
    link = tmp_path / "folder" / "config.json"
    link.parent.mkdir()
    link.symlink_to(file)
    files = {"config.json": str(link), "sub/weights": str(file)}
    spec = replace(want().spec, path=str(link.parent), files=files, folder=str(link.parent))
    await load_on(node, spec=spec)
    (host,) = running.lease._lease.hosts.values()
    (folder,) = host.folders
    links = Path(folder, "config.json"), Path(folder, "sub/weights")
    assert [each.readlink() for each in links] == [file, file]
    await running.lease.aclose()
    assert not links[0].parent.exists()


async def test_a_backend_that_the_node_lacks_is_named(run_node, make_node, load_on, registry):
    node = make_node((await run_node()).address)
    backend = replace(registry.get("scripted"), name="other")
    with pytest.raises(NodeError, match=r"backend 'other' is not installed"):
        await load_on(node, backend=backend)


async def test_a_second_core_is_refused(run_node, make_node, load_on, monkeypatch):
    address = (await run_node()).address
    first = make_node(address)
    model = await load_on(first)
    monkeypatch.setattr("puna.runtime.node.CORE_ID", "another")
    with pytest.raises(NodeError, match="the node serves another core, "):
        await load_on(make_node(address))
    monkeypatch.undo()
    assert await text(model, "a") == ["a"]


async def test_certificates_of_another_cluster_are_refused(run_node, make_node, cluster, tmp_path, stack):
    certificates.make(tmp_path)
    ours, theirs = (await run_node()).address, (await run_node(tmp_path / "node")).address
    began = time.monotonic()
    with pytest.raises(NodeError, match="has no certificate of this cluster"):
        await make_node(theirs).connect()
    # A core that would accept the node, but has a certificate of another cluster.
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name, source in (("ca.crt", cluster), ("tls.crt", tmp_path / "core"), ("tls.key", tmp_path / "core")):
        (mixed / name).write_bytes((source / name).read_bytes())
    with pytest.raises(NodeError, match="refuses this core's certificate"):
        await make_node(ours, mixed).connect()
    assert time.monotonic() - began < CLEAR_SECONDS


async def test_a_partition_is_a_clear_error_for_everything_that_waits(run_node, make_node, load_on, network, lost):
    running = await run_node(lease_seconds=2.5)
    between = await network(running.address)
    node = make_node(between.address, silence=1.5)
    assert (node.status().state, node.status().error) == (NodeState.DISCONNECTED, "")
    model = await load_on(node)
    assert (node.status().state, node.status().hosts) == (NodeState.CONNECTED, 1)
    assert abs(node.status().lease_expires_ns - time.time_ns()) < 60e9
    (pid,) = await processes(running)
    waiting = [
        asyncio.create_task(each)
        for each in (
            text(model, "a @wait 600"),
            text(model, "@endless"),
            load_on(node, load="stall"),
        )
    ]
    await until(lambda: len(running.lease._lease.hosts) == 2)
    await asyncio.sleep(0.2)
    began = time.monotonic()
    between.drop()
    waiting.insert(2, asyncio.create_task(model.embed(["a"])))
    outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 30)
    took = time.monotonic() - began
    assert [type(each) for each in outcomes] == [BackendCrashedError] * 3 + [NodeLostError]
    assert all(f"{between.address} has not answered for 1.5 s" in str(each) for each in outcomes), outcomes
    assert lost == [NodeLost(node=between.address, hosts=2, error=f"{between.address} has not answered for 1.5 s")]
    found = node.status()
    assert (found.state, found.hosts, found.losses, found.lease_expires_ns) == (NodeState.DISCONNECTED, 0, 1, 0)
    assert found.error == lost[0].error
    # Closing what is gone waits for nothing either.
    await asyncio.wait_for(model.aclose(), CLEAR_SECONDS)
    assert took < CLEAR_SECONDS + 1.0
    await until(lambda: not runs(pid))  # the lease has run out
    between.heal()
    assert await text(await load_on(node), "again") == ["again"]
    assert (node.status().state, node.status().error, node.status().losses) == (NodeState.CONNECTED, "", 1)


async def test_a_node_that_does_not_know_the_lease_any_more_is_connected_again(run_node, make_node, load_on, lost):
    running = await run_node(lease_seconds=600.0)
    node = make_node(running.address)
    await node.connect()
    # As if the node had been started anew between two renewals.
    node._link.renewing.cancel()
    await running.lease.aclose()
    assert await text(await load_on(node), "again") == ["again"]
    assert [each.node for each in lost] == [running.address]


async def test_a_healed_node_ends_the_hosts_that_were_given_up(run_node, make_node, load_on, network):
    running = await run_node(lease_seconds=600.0)
    between = await network(running.address)
    node = make_node(between.address, silence=1.0)
    model = await load_on(node)
    (old,) = await processes(running)
    between.drop()
    with pytest.raises(BackendCrashedError):
        await text(model, "@endless")
    between.heal()
    await load_on(node)
    await until(lambda: not runs(old))
    assert len(await processes(running)) == 1


async def test_a_core_that_is_gone_ends_its_hosts(run_node, make_node, load_on, monkeypatch):
    running = await run_node(lease_seconds=0.7)

    async def never(self, link):
        await asyncio.sleep(3600)

    monkeypatch.setattr("puna.runtime.node.Node._keep", never)
    await load_on(make_node(running.address))
    (pid,) = await processes(running)
    await asyncio.wait_for(running.lease.ended.wait(), 30)
    await until(lambda: not runs(pid))


async def test_a_stopped_host_is_found_by_its_heartbeat(run_node, make_node, load_on):
    running = await run_node()
    model = await load_on(make_node(running.address), timeouts=HangTimeouts(silence=1.0, step=60.0))
    (pid,) = await processes(running)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(BackendCrashedError, match="it has not answered for 1 seconds"):
        await text(model, "a @wait 600")
    await model.aclose()
    await until(lambda: not runs(pid))
