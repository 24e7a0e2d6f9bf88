import logging
from types import SimpleNamespace

import pytest

from puna import events
from puna.cli.serve import _measured, report_broken
from puna.plugins import Plugin, Registry
from puna.settings import Settings

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


@pytest.mark.parametrize(
    ("settings", "collects", "offers"),
    [
        (Settings(), False, True),
        (Settings(dashboard=False), False, False),
        (Settings(dashboard=False, rest_metrics=True), True, True),
    ],
)
def test_metrics_for_the_dashboard_begin_with_its_first_question(settings, collects, offers):
    serving = SimpleNamespace(activity=SimpleNamespace(entries=list), metrics=None)
    pool = SimpleNamespace(
        loaded=lambda: [
            SimpleNamespace(name="m:latest", size_bytes=1, kv_cache_tokens=0, kv_cache_usage=None, replicas=())
        ],
        nodes=tuple,
    )
    with _measured(serving, pool, settings):
        assert events.wanted(events.RequestEnded) is collects
        assert (serving.metrics is not None) is offers
        if offers:
            assert b'puna:models_loaded{model_name="m"} 1.0' in serving.metrics()
            events.publish(events.HostDied(model="m", status="SIGKILL"))
            assert b'puna:host_deaths_total{model_name="m",status="SIGKILL"} 1.0' in serving.metrics()
    assert not events.wanted(events.RequestEnded)
