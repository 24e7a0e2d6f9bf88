import asyncio

import pytest

from puna import events
from puna.errors import QueueFullError
from puna.events import HostDied, ModelRemoved

DIED = HostDied(model="m", status="SIGKILL")
EVERY = [each for each in vars(events).values() if hasattr(each, "__dataclass_params__")]


def test_listeners_hear_events_of_their_class_until_they_unsubscribe():
    heard = []
    stop = events.subscribe(HostDied, heard.append)
    assert events.wanted(HostDied)
    events.publish(DIED)
    events.publish(ModelRemoved(model="m", cause="expired"))
    stop()
    events.publish(DIED)
    assert heard == [DIED]
    assert not events.wanted(HostDied)


def test_a_listener_that_fails_harms_neither_the_publisher_nor_the_others(caplog):
    heard = []

    def broken(event):
        raise ValueError("out of order")

    stops = [events.subscribe(HostDied, broken), events.subscribe(HostDied, heard.append)]
    events.publish(DIED)
    for stop in stops:
        stop()
    assert heard == [DIED]
    assert "a listener to HostDied failed: out of order" in caplog.text


def test_a_listener_may_unsubscribe_while_it_is_called():
    heard = []

    def once(event):
        heard.append(event)
        stop()

    stop = events.subscribe(HostDied, once)
    after = events.subscribe(HostDied, heard.append)
    events.publish(DIED)
    events.publish(DIED)
    after()
    assert heard == [DIED] * 3


@pytest.mark.parametrize("kind", EVERY)
def test_events_cannot_be_changed_by_listeners(kind):
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize(
    ("failure", "error"),
    [(QueueFullError(), "QUEUE_FULL"), (ValueError("secret"), "ValueError"), (asyncio.CancelledError(), "CANCELLED")],
)
def test_a_stage_that_fails_is_published_with_the_reason_and_not_the_text(failure, error):
    heard = []
    stop = events.subscribe(events.StageEnded, heard.append)
    with events.stage("render", words=3):
        pass
    with pytest.raises(type(failure)), events.stage("render"):
        raise failure
    stop()
    assert [(each.stage, each.error, dict(each.facts)) for each in heard] == [
        ("render", "", {"words": 3}),
        ("render", error, {}),
    ]
    assert all(each.start_ns <= each.end_ns for each in heard)
