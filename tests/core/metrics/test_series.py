import math

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from puna.metrics.series import CounterSeries, HistogramSeries

BOUNDS = (0.005, 0.1, 1.0, 2.5, 1000000.0)
VALUES = (0.0, 0.005, 0.0051, 0.1, 1.0, 2.0, 2.5, 3.0, 1e6, 1e7)


@pytest.fixture
def library(monkeypatch):
    """The library's own registry and classes, whose text is known to be right."""
    monkeypatch.setattr(prometheus_client.metrics, "_use_created", False)
    return CollectorRegistry()


def test_a_counter_has_the_text_of_the_librarys(library):
    own = CollectorRegistry()
    ours = CounterSeries("puna:c", "A counter.", ("model_name", "reason"), own)
    theirs = prometheus_client.Counter("puna:c", "A counter.", ("model_name", "reason"), registry=library)
    assert generate_latest(own) == generate_latest(library)
    for labels, count in ((("m", "stop"), 1), (('q"\n\\', "length"), 2.5), (("m", "stop"), 3)):
        ours.add(*labels, count=count)
        theirs.labels(*labels).inc(count)
    assert generate_latest(own) == generate_latest(library)


def test_a_histogram_has_the_text_of_the_librarys(library):
    own = CollectorRegistry()
    ours = HistogramSeries("puna:h", "A histogram.", ("model_name",), BOUNDS, own)
    theirs = prometheus_client.Histogram("puna:h", "A histogram.", ("model_name",), registry=library, buckets=BOUNDS)
    ours.observe("m", values=VALUES)
    ours.observe("m", values=(math.pi,))
    ours.observe("other", values=())
    theirs.labels("other")
    for value in (*VALUES, math.pi):
        theirs.labels("m").observe(value)
    lines = set(generate_latest(own).decode().splitlines())
    assert lines == set(generate_latest(library).decode().splitlines())
    assert 'puna:h_bucket{le="0.005",model_name="m"} 2.0' in lines


def test_a_name_is_registered_once():
    own = CollectorRegistry()
    CounterSeries("puna:c", "A counter.", (), own)
    with pytest.raises(ValueError, match="puna:c"):
        HistogramSeries("puna:c", "A histogram.", (), BOUNDS, own)
