"""Everything is killed once under load. `python -m tools.soak.kills` does so hundreds of times."""

from pathlib import Path

from tools.soak.kills.__main__ import report, torment
from tools.soak.kills.cluster import StaticCluster

SLACK = 4.0
"""Seconds more than three that an error may take here, where other tests keep the processors busy."""


async def test_each_client_gets_its_answer_or_a_clear_error_and_nothing_is_left(short_folder):
    cluster = StaticCluster(Path(short_folder))
    verdict = await torment(cluster, cluster.kinds, streams=6, probers=3, slack=SLACK, seed=1)
    assert verdict.faults == [], report(verdict)
    assert set(verdict.kills) == set(verdict.delays) == set(cluster.kinds)
    assert verdict.answers > 0
