from dataclasses import replace

import pytest

from puna.backend.v1 import backend_pb2 as wire
from puna.limits import DEFAULT_LIMITS
from puna.runtime.host_events import IncomingEvents


class Host:
    """Records what the core does to it."""

    def __init__(self):
        self.violations = []
        self.cancelled = []
        limits = replace(DEFAULT_LIMITS, max_sequence_bytes=1000)
        self.incoming = IncomingEvents(limits, self.violations.append, self.cancelled.append)

    def send(self, *texts):
        """Send a message with a delta for each pair of id and text."""
        events = [wire.SequenceEvent(sequence_id=i, text_delta=wire.TextDelta(text=text)) for i, text in texts]
        self.incoming.take(wire.RunResponse(events=events).SerializeToString())


@pytest.fixture
def host():
    return Host()


def texts(incoming):
    return [incoming.events.get_nowait().text_delta.text for _ in range(len(incoming.events))]


def test_events_reach_their_sequences(host):
    (one, first), (two, second) = host.incoming.open(), host.incoming.open()
    host.send((one, "a"), (two, "b"), (one, "c"))
    assert (texts(first), texts(second)) == (["a", "c"], ["b"])
    assert host.incoming.messages == 1


def test_events_that_cross_a_cancel_are_dropped(host):
    one, _ = host.incoming.open()
    host.incoming.close(one)
    host.send((one, "a"))
    assert host.violations == []
    assert len(host.incoming) == 0


@pytest.mark.parametrize("sequence_id", [0, 2, 2**63])
def test_an_id_that_the_core_never_chose_is_a_violation(host, sequence_id):
    host.incoming.open()
    host.send((sequence_id, "a"))
    assert host.violations == ["it sent an event of a sequence that does not exist"]


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x05\x12\x03\x0a\x01\xff"])
def test_a_message_that_cannot_be_read_is_a_violation(host, garbage):
    host.incoming.open()
    host.incoming.take(garbage)
    assert host.violations == ["it sent a message that cannot be read"]


def test_a_sequence_without_end_is_failed_once(host):
    (one, first), (two, second) = host.incoming.open(), host.incoming.open()
    for _ in range(20):
        host.send((one, "x" * 100))
    host.send((two, "b"))
    received = [first.events.get_nowait() for _ in range(len(first.events))]
    assert [each.HasField("failure") for each in received] == [False] * (len(received) - 1) + [True]
    assert len(received) < 11
    assert "PUNA_MAX_SEQUENCE_BYTES" in received[-1].failure.message
    assert host.cancelled == [one]
    assert texts(second) == ["b"]


def test_a_slow_client_is_not_the_hosts_fault(host):
    one, first = host.incoming.open()
    assert host.incoming.due
    host.send((one, "a"))
    assert not host.incoming.due
    texts(first)
    assert host.incoming.due
    first.ended = True
    assert not host.incoming.due


def test_the_end_of_the_host_wakes_every_sequence(host):
    incoming = [host.incoming.open()[1] for _ in range(3)]
    host.incoming.end()
    assert [each.events.get_nowait() for each in incoming] == [None] * 3


def test_a_sequence_whose_client_reads_too_slowly_is_dropped(host):
    host.incoming = IncomingEvents(
        replace(DEFAULT_LIMITS, max_unread_deltas=3), host.violations.append, host.cancelled.append
    )
    one, first = host.incoming.open()
    for _ in range(5):
        host.send((one, "a"))
    assert [each and each.text_delta.text for each in (first.events.get_nowait() for _ in range(4))] == [*"aaa", None]
    assert (host.cancelled, host.violations, len(host.incoming)) == ([one], [], 0)
    host.incoming.close(one)


def test_reports_of_a_prefill_end_no_sequence(host):
    host.incoming = IncomingEvents(
        replace(DEFAULT_LIMITS, max_unread_deltas=3), host.violations.append, host.cancelled.append
    )
    one, first = host.incoming.open()
    for done in range(5):
        prefill = wire.Prefill(done_tokens=done, total_tokens=9)
        host.incoming.take(
            wire.RunResponse(events=[wire.SequenceEvent(sequence_id=one, prefill=prefill)]).SerializeToString()
        )
    assert [first.events.get_nowait().prefill.done_tokens for _ in range(len(first.events))] == [0, 1, 2]
    host.send((one, "a"))
    assert (texts(first), host.cancelled) == (["a"], [])
