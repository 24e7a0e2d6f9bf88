import logging

import pytest

from puna.cli.serve import report_broken
from puna.plugins import Plugin, Registry

BROKEN = Plugin(name="broken", error="it has no manifest")
WORKING = Plugin(name="works")


@pytest.mark.parametrize(
    ("entries", "default", "works", "levels"),
    [
        ([BROKEN, WORKING], "", True, [logging.INFO]),
        ([BROKEN, WORKING], "works", True, [logging.INFO]),
        ([BROKEN, WORKING], "broken", True, [logging.WARNING]),
        ([BROKEN], "", False, [logging.ERROR]),
        ([WORKING], "", True, []),
        ([], "", False, [logging.ERROR]),
    ],
)
def test_a_broken_backend_weighs_as_much_as_it_is_missed(caplog, entries, default, works, levels):
    with caplog.at_level(logging.INFO, "puna.cli.serve"):
        assert report_broken(Registry(lambda: entries), default) is works
    assert [each.levelno for each in caplog.records if each.name == "puna.cli.serve"] == levels
