import math

import pytest

from puna.limits import DEFAULT_LIMITS, LARGEST_INT32, clamp_int32, read_limits


@pytest.mark.parametrize(
    ("value", "clamped"),
    [(0, 0), (-7, -7), (2**31, LARGEST_INT32), (10**400, LARGEST_INT32), (-(2**31), -LARGEST_INT32)],
)
def test_numbers_are_clamped_to_the_range_of_the_wire(value, clamped):
    assert clamp_int32(value) == clamped


def test_the_environment_wins_over_the_file():
    limits = read_limits({"PUNA_MAX_TOOLS": "3"}, {"max_tools": 4, "max_stops": 5})
    assert (limits.max_tools, limits.max_stops) == (3, 5)


def test_zero_removes_a_bound():
    limits = read_limits({"PUNA_MAX_TOOLS": "0", "PUNA_IDLE_TIMEOUT": "0"})
    assert limits.max_tools > 10**15
    assert limits.idle_timeout == math.inf


@pytest.mark.parametrize("text", ["-1", "many", "nan", "1e999x"])
def test_a_bad_value_is_named_and_falls_back(text, caplog):
    assert read_limits({"PUNA_MAX_TOOLS": text}).max_tools == DEFAULT_LIMITS.max_tools
    assert "PUNA_MAX_TOOLS" in caplog.text


def test_an_unknown_name_in_the_file_is_an_error():
    with pytest.raises(ValueError, match="max_teapots"):
        read_limits({}, {"max_teapots": 1})
