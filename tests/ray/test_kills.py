"""Everything is killed once under load. `python -m tools.soak.kills --launcher ray` does so hundreds of times."""

import tempfile
from pathlib import Path

import pytest
from tools.soak.kills.__main__ import report, torment
from tools.soak.kills.ray_cluster import RayCluster

SLACK = 4.0
"""Seconds more than three that an error may take here, where other tests keep the processors busy."""


@pytest.fixture
def short_folder():
    """A folder whose path leaves room for the sockets of Ray below it."""
    with tempfile.TemporaryDirectory(prefix="kills-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.usefixtures("packages")
async def test_each_client_gets_its_answer_or_a_clear_error_and_nothing_is_left(short_folder):
    cluster = RayCluster(short_folder)
    verdict = await torment(cluster, cluster.kinds, streams=4, probers=2, slack=SLACK, seed=1)
    assert verdict.faults == [], report(verdict)
    assert set(verdict.kills) == set(cluster.kinds)
    assert {"host", "hosts", "node", "stop", "core"} <= set(verdict.delays)
    assert verdict.answers > 0
