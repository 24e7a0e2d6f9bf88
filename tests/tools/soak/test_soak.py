"""The soak itself, for a few seconds, and that it would notice what it is there to notice."""

import subprocess
import sys
from pathlib import Path

import pytest
from tools.soak.held import Held
from tools.soak.verdict import faults, growth
from tools.soak.work import Tally

ROOT = Path(__file__).parents[3]
CALM = Held(bytes=1000, handles=20, sockets=5, threads=10, processes=2)
STEADY = [1000] * 50


def test_a_server_under_mixed_work_keeps_nothing():
    command = [sys.executable, "-m", "tools.soak", "--seconds", "5", "--fill", "0", "--growth", "1"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "rest tools" in told.stdout


def test_growth_is_from_the_second_tenth_to_the_last():
    assert growth([1, 1, 1, 1, 1, 100, 100, 100, 100, 100, *STEADY[:30], *[110] * 10]) == pytest.approx(0.1)
    assert growth([5, 7]) == 0.0


@pytest.mark.parametrize(
    ("after", "samples", "left", "told"),
    [
        (CALM, [*STEADY, *[2000] * 20], "", "memory grew by 100.0%"),
        (Held(1000, 40, 5, 10, 2), STEADY, "", "20 handles became 40"),
        (Held(1000, 20, 50, 10, 2), STEADY, "", "5 sockets became 50"),
        (Held(1000, 20, 5, 100, 2), STEADY, "", "10 threads became 100"),
        (Held(1000, 20, 5, 10, 3), STEADY, "", "2 processes became 3"),
        (CALM, STEADY, "Generate of m", "still at work: Generate of m"),
    ],
)
def test_what_is_left_is_told(after, samples, left, told):
    [fault] = faults(CALM, after, samples, Tally(), 0.05, left)
    assert fault.startswith(told)


def test_a_server_that_keeps_nothing_passes():
    assert faults(CALM, CALM, STEADY, Tally(), 0.05, "") == []


def test_errors_are_told():
    tally = Tally()
    tally.errors["rest chat: 500"] += 3
    assert faults(CALM, CALM, STEADY, tally, 0.05, "") == ["3 times rest chat: 500"]
