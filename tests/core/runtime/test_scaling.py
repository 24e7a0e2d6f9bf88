"""How many replicas a model has."""

from dataclasses import replace

import pytest

from puna.runtime.scaling import Demand, ScalingLimits, change

LIMITS = ScalingLimits(least=1, most=4)
QUIET = Demand(replicas=2, starting=0, slots=16, taken_slots=8, longest_wait=0.0, longest_idle=0.0)


@pytest.mark.parametrize(
    ("demand", "limits", "expected"),
    [
        (QUIET, LIMITS, 0),
        (replace(QUIET, longest_wait=2.0, taken_slots=13), LIMITS, 1),
        (replace(QUIET, longest_wait=1.9, taken_slots=16), LIMITS, 0),
        (replace(QUIET, longest_wait=9.0, taken_slots=12), LIMITS, 0),
        (replace(QUIET, longest_wait=9.0, taken_slots=16, starting=1), LIMITS, 0),
        (replace(QUIET, longest_wait=9.0, taken_slots=32, slots=32, replicas=4), LIMITS, 0),
        (replace(QUIET, longest_idle=60.0), LIMITS, -1),
        (replace(QUIET, longest_idle=59.0), LIMITS, 0),
        (replace(QUIET, longest_idle=600.0, replicas=1), LIMITS, 0),
        (replace(QUIET, longest_idle=600.0, longest_wait=2.0, taken_slots=16), LIMITS, 1),
        (replace(QUIET, replicas=0), LIMITS, 1),
        (replace(QUIET, replicas=0, starting=1), LIMITS, 0),
        (replace(QUIET, replicas=1, starting=1), ScalingLimits(least=3, most=3), 1),
    ],
)
def test_change(demand, limits, expected):
    assert change(demand, limits) == expected
