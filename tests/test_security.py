"""SECURITY.md says what the limits are, and the settings that it names are read."""

import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from puna import limits

ROW = re.compile(r"^\| `(PUNA_[A-Z_]+)` \| ([\d.]+) \|", re.MULTILINE)


def test_every_limit_is_listed_with_its_default():
    listed = dict(ROW.findall((Path(__file__).parents[1] / "SECURITY.md").read_text()))
    assert listed == {"PUNA_" + each.name.upper(): str(each.default) for each in fields(limits.Limits)}


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("0", sys.maxsize), ("", 64 << 20), ("-1", 64 << 20), ("many", 64 << 20)]
)
def test_the_environment_sets_a_limit(text, value):
    assert limits.read_limits({"PUNA_MAX_REQUEST_BYTES": text}).max_request_bytes == value


def test_the_environment_wins_over_the_configuration():
    table = {"max_request_bytes": 7}
    assert limits.read_limits({}, table).max_request_bytes == 7
    assert limits.read_limits({"PUNA_MAX_REQUEST_BYTES": "5"}, table).max_request_bytes == 5


def test_an_unknown_limit_in_the_configuration_is_an_error():
    with pytest.raises(ValueError, match="unknown limit 'max_requests'"):
        limits.read_limits({}, {"max_requests": 7})
