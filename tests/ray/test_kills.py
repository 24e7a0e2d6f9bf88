"""Parts of a cluster are killed under load. `python -m tools.soak.kills --launcher ray` does so for longer."""

import tempfile
from pathlib import Path

import pytest
from tools.soak.kills.__main__ import report, torment
from tools.soak.kills.ray_cluster import RayCluster

KINDS = ("host", "node", "stop", "raylet", "driver", "core")
"""What is killed here. The other tests kill actors and the head alone, and the soak does so under load."""
SLACK = 4.0
"""Seconds more than three that an error may take here, where other tests keep the processors busy."""


@pytest.fixture
def short_folder():
    """A folder whose path leaves room for the sockets of Ray below it."""
    with tempfile.TemporaryDirectory(prefix="kills-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.usefixtures("packages")
async def test_each_client_gets_its_answer_or_a_clear_error_and_nothing_is_left(short_folder):
    verdict = await torment(RayCluster(short_folder, nodes=2), KINDS, streams=3, probers=2, slack=SLACK, seed=1)
    assert verdict.faults == [], report(verdict)
    assert set(verdict.kills) == set(KINDS)
    # A raylet and the process that uses Ray may go without a stream that ends.
    assert {"host", "node", "stop", "core"} <= set(verdict.delays) <= set(KINDS) - {"raylet", "driver"}
    assert verdict.answers > 0
