"""Policies side by side in virtual time."""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from tools.simulate.cluster import Cluster
from tools.simulate.replicas import HostCosts
from tools.simulate.report import row
from tools.simulate.workloads import WORKLOADS, arrivals, fitting

from puna.runtime.routing import policies
from puna.runtime.scaling import ScalingLimits

ROOT = Path(__file__).parents[3]
COSTS = HostCosts(step=0.006, sequence=0.0006, prefill=0.0004, slots=8)
THREE = ScalingLimits(least=3, most=3)


def run(workload, policy, per_second, *, requests=800, seed=1, limits=THREE):
    chosen = policies(seed, COSTS.routing(130))[policy]
    return Cluster(COSTS, chosen, limits).run(arrivals(workload, seed, requests, per_second))


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("policy", ["random", "least-loaded", "session", "prefix"])
def test_every_request_ends_once_and_a_run_can_be_repeated(workload, policy):
    first, again = (run(workload, policy, 5.0, requests=200) for _ in range(2))
    sessions = arrivals(workload, 1, 200, 5.0)
    assert len(first.jobs) == sum(len(session) for _, session in sessions)
    assert all(job.arrived < job.first <= job.ended for job in first.jobs)
    assert [job.ended for job in first.jobs] == [job.ended for job in again.jobs]


def test_prefix_routing_serves_more_chats_and_loses_nothing_on_unique_prompts():
    for workload, per_second, least in (("chats", 16.0, 1.3), ("unique", 6.0, 0.95)):
        ratios = []
        for seed in range(3):
            base, ours = (
                row(run(workload, name, per_second, seed=seed, requests=2000), 2.0)
                for name in ("least-loaded", "prefix")
            )
            ratios.append(ours.goodput / base.goodput)
        assert statistics.median(ratios) >= least


def test_replicas_come_with_the_queue_and_go_when_idle():
    outcome = run("unique", "least-loaded", 6.0, limits=ScalingLimits(least=1, most=4))
    assert 1 <= outcome.cold_starts <= 6
    assert outcome.replica_seconds < 4 * outcome.seconds
    one = run("unique", "least-loaded", 6.0, limits=ScalingLimits(least=1, most=1))
    assert row(outcome, 2.0).goodput > row(one, 2.0).goodput


def test_sessions_end_where_the_context_does():
    cut = fitting(arrivals("agents", 1, 200, 1.0), 4000)
    assert all(turn.prompt.tokens + turn.output_tokens < 4000 for _, session in cut for turn in session)
    assert sum(len(session) for _, session in cut) > 20


def test_the_command_prints_a_table():
    command = [sys.executable, "-m", "tools.simulate", "compare", "--requests", "50", "--seeds", "1"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split("|")[1].strip() for line in told.stdout.splitlines() if line.startswith("|")][2:] == [
        "random",
        "least-loaded",
        "session",
        "prefix",
    ]
