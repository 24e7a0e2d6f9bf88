"""Nodes that another program has started."""

import asyncio
import json
import os
import socket
import subprocess

import pytest
from tests.core.process.test_cluster_certificates import shake_hands

from puna.node import supervision
from puna.node.lease import LeaseHolder
from puna.node.supervision import Supervision, unclaimed
from puna.process import cluster_certificates
from puna.process.cluster_tls import core_context_of


@pytest.fixture
def pipe():
    """A supervisor's end and a node's end."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as node, os.fdopen(writing, "w") as supervisor:
        yield supervisor, node


@pytest.fixture
def agent():
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def head():
    """The head of a cluster, as far as a node knows it: a port that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def tell(supervisor, agent, certificate, head):
    address = "{}:{}".format(*head.getsockname())
    supervisor.write(json.dumps({"agent": agent.pid, "certificate": certificate, "head": address}) + "\n")
    supervisor.flush()


def test_the_certificate_comes_from_the_supervisor(pipe, agent, head):
    issued = cluster_certificates.issue()
    tell(pipe[0], agent, issued["node"], head)
    shake_hands(core_context_of(issued["core"]), Supervision(pipe[1]).context())
    assert all("PRIVATE KEY" not in issued[kind]["ca.crt"] + issued[kind]["tls.crt"] for kind in issued)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json\n",
        "[]\n",
        '{"agent": 1}\n',
        '{"agent": 1, "certificate": {}}\n',
        '{"agent": 1, "certificate": {}, "head": "127.0.0.1"}\n',
        '{"agent": 1, "certificate": {}, "head": "127.0.0.1:1"}\n',
    ],
)
def test_a_supervisor_without_a_certificate_is_an_error(pipe, line):
    pipe[0].write(line)
    pipe[0].close()
    with pytest.raises(OSError, match=r"certificate|PEM|SSL"):
        Supervision(pipe[1]).context()


@pytest.fixture
def supervised(pipe, agent, head, monkeypatch):
    monkeypatch.setattr(supervision, "AGENT_SECONDS", 0.2)
    tell(pipe[0], agent, cluster_certificates.issue()["node"], head)
    made = Supervision(pipe[1])
    made.context()
    return made


async def test_a_node_ends_with_its_supervisor_alone(supervised, pipe):
    ending = asyncio.create_task(supervised.ended())
    await asyncio.sleep(0.05)
    assert not ending.done()
    pipe[0].close()
    await asyncio.wait_for(ending, 30)


async def test_a_node_outlives_a_supervisor_that_ends_with_its_agent(supervised, pipe, agent, caplog):
    ending = asyncio.create_task(supervised.ended())
    agent.kill()
    pipe[0].close()
    await goes_on(ending, caplog)


async def test_a_node_waits_longer_for_the_agents_end_if_the_head_is_gone(supervised, pipe, agent, head, caplog):
    head.close()
    ending = asyncio.create_task(supervised.ended())
    pipe[0].close()
    await asyncio.sleep(3 * supervision.AGENT_SECONDS)
    assert not ending.done()
    agent.kill()
    await goes_on(ending, caplog)


async def test_a_node_ends_with_its_supervisor_although_the_head_is_gone(supervised, pipe, head, monkeypatch):
    monkeypatch.setattr(supervision, "HEADLESS_AGENT_SECONDS", 0.2)
    head.close()
    pipe[0].close()
    await asyncio.wait_for(supervised.ended(), 30)


async def goes_on(ending, caplog):
    while "this node goes on" not in caplog.text:  # noqa: ASYNC110 - a log has no event
        await asyncio.sleep(0.01)
    assert not ending.done()
    ending.cancel()


async def test_a_node_that_no_core_takes_ends():
    await asyncio.wait_for(unclaimed(LeaseHolder(60), 0.01), 30)


async def test_a_node_that_a_core_has_taken_goes_on():
    holder = LeaseHolder(60)
    await holder.renew("lease", "core", "a")
    waiting = asyncio.create_task(unclaimed(holder, 0.05))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    waiting.cancel()
    await holder.release("lease")
    assert holder.ended.is_set()
