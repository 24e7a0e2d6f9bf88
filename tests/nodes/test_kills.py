"""Everything is killed once under load. `python -m tools.soak.kills` does so hundreds of times."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tools.soak.kills.__main__ import report, torment
from tools.soak.kills.cluster import StaticCluster

ROOT = Path(__file__).parents[2]
SLACK = 4.0
"""Seconds more than three that an error may take here, where other tests keep the processors busy."""


async def test_each_client_gets_its_answer_or_a_clear_error_and_nothing_is_left(short_folder):
    cluster = StaticCluster(Path(short_folder))
    verdict = await torment(cluster, cluster.kinds, streams=6, probers=3, slack=SLACK, seed=1)
    assert verdict.faults == [], report(verdict)
    assert set(verdict.kills) == set(verdict.delays) == set(cluster.kinds)
    assert verdict.answers > 0


def test_slow_and_cut_networks_are_survived_or_a_clear_error():
    """Delay, loss, a wire that is cut for a moment or for longer, in network namespaces of their own."""
    unshare = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command = [*unshare, sys.executable, "-m", "tools.soak.kills", "--launcher", "network", "--rounds", "0"]
    told = subprocess.run(
        [*command, "--slack", str(SLACK), "--probers", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert re.search(r"^long-partition +1 ", told.stdout, re.MULTILINE)
