import math

import pytest

from puna.errors import BackendCrashedError, InvalidRequestError
from puna.serving.load_meter import SECONDS, LoadMeter


@pytest.fixture
def clock():
    class Clock:
        seconds = 100.0

        def __call__(self):
            return self.seconds

    return Clock()


@pytest.fixture
def meter(clock):
    return LoadMeter(clock)


def test_a_steady_load_has_its_own_average(meter, clock):
    """Two requests at a time, each of half a second: four in a second."""
    for _ in range(400):
        with meter.counted("Chat"), meter.counted("StreamGenerate"):
            clock.seconds += 0.5
    under_way, requests, failures = meter.read()
    assert under_way == pytest.approx(2, rel=0.01)
    assert requests == pytest.approx(4, rel=0.05)
    assert failures == 0


def test_the_past_counts_less_and_less(meter, clock):
    with meter.counted("Chat"):
        clock.seconds += 1000
    assert meter.read()[0] == pytest.approx(1)
    clock.seconds += SECONDS
    assert meter.read() == pytest.approx((1 / math.e, 1 / SECONDS / math.e, 0))


def test_the_rate_per_load_does_not_depend_on_how_long_it_was_measured(meter, clock):
    """A balancer divides the two, and may ask after the first request."""
    with meter.counted("Chat"):
        clock.seconds += 0.1
    under_way, requests, _ = meter.read()
    assert requests / under_way == pytest.approx(10, rel=0.01)


def test_faults_of_the_server_are_failures(meter):
    for error in (BackendCrashedError("SIGKILL"), RuntimeError(), InvalidRequestError("no")):
        with pytest.raises(type(error)), meter.counted("Chat"):
            raise error
    assert meter.read()[1:] == pytest.approx((3 / SECONDS, 2 / SECONDS), rel=0.01)


def test_only_what_runs_a_model_counts(meter, clock):
    with meter.counted("PullModel"):
        clock.seconds += 10
        assert meter.read() == (0, 0, 0)
