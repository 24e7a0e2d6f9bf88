import pytest

from puna import events
from puna.events import HostDied, ModelRemoved

DIED = HostDied(model="m", status="SIGKILL")


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


@pytest.mark.parametrize("kind", [events.RequestEnded, events.ModelLoaded, HostDied, ModelRemoved, events.CallEnded])
def test_events_cannot_be_changed_by_listeners(kind):
    assert kind.__dataclass_params__.frozen
