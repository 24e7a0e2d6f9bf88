import asyncio
from dataclasses import replace

import pytest

from puna.limits import Limits
from puna_rest.connections import FOREVER, LEAST_RATE, SMALL_BODY, Connections, client_of
from puna_rest.errors import BusyError, RestError


class Wire:
    """The part of a transport that the timeouts use."""

    def __init__(self):
        self.aborted = False

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return self.aborted


class Body:
    def __init__(self):
        self.error = None

    def set_exception(self, error):
        self.error = error


class Peer:
    """The state of a connection, without aiohttp's parser."""

    def __init__(self, connections, address="10.0.0.1"):
        self.address = client_of(address)
        self.wire = Wire()
        self.body = self.head_since = self.silent_since = self.unread_since = self.closing_since = None
        self.body_since = 0.0
        self.body_bytes = self.ahead = self.held = 0
        self.at_work = False
        self.waiting_since = connections.now()
        connections.add(self)


@pytest.fixture
async def connections():
    limits = replace(
        Limits(),
        max_connections=4,
        max_connections_per_address=2,
        max_bodies_bytes=10 * SMALL_BODY,
        header_timeout=1.0,
        idle_timeout=10.0,
        body_timeout=2.0,
        write_timeout=3.0,
    )
    found = Connections(limits, asyncio.get_running_loop())
    found.clock = 100.0
    found.now = lambda: found.clock
    return found


@pytest.mark.parametrize(
    ("address", "same", "other"),
    [
        ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe80:0:0:1::1"),
        ("unix", "unix", ""),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(address, same, other):
    assert client_of(address) == client_of(same) != client_of(other)


async def test_beyond_the_cap_of_an_address_its_longest_waiting_connection_makes_room(connections):
    first, second = Peer(connections), Peer(connections)
    connections.wait(first)  # now the second has waited longer
    assert connections.admit("10.0.0.1")
    assert second.wire.aborted
    assert not first.wire.aborted


async def test_connections_at_work_are_never_closed_for_others(connections):
    peers = [Peer(connections) for _ in range(2)]
    for each in peers:
        connections.work(each)
    assert not connections.admit("10.0.0.1")
    assert connections.admit("10.0.0.2")
    assert not any(each.wire.aborted for each in peers)


async def test_beyond_the_cap_on_all_the_busiest_address_makes_room(connections):
    lone = [Peer(connections, "10.0.0.1"), Peer(connections, "10.0.0.2")]
    busy = [Peer(connections, "10.0.0.3"), Peer(connections, "10.0.0.3")]
    assert connections.admit("10.0.0.4")
    assert busy[0].wire.aborted
    assert not any(each.wire.aborted for each in [*lone, busy[1]])
    assert connections.evict()
    assert connections.evict()
    assert connections.evict()
    assert not connections.evict()


async def test_a_connection_that_ends_gives_its_place_back(connections):
    peers = [Peer(connections), Peer(connections)]
    for each in peers:
        connections.work(each)
    connections.remove(peers[0])
    connections.remove(peers[0])
    assert connections.admit("10.0.0.1")


async def test_bodies_together_have_a_limit_until_their_requests_are_answered(connections):
    first, second = Peer(connections), Peer(connections)
    connections.hold(first, 6 * SMALL_BODY)
    connections.hold(first, 8 * SMALL_BODY)
    connections.hold(second, 2 * SMALL_BODY)
    with pytest.raises(BusyError):
        connections.hold(second, 2 * SMALL_BODY + 1)
    connections.wait(first)
    connections.hold(second, 10 * SMALL_BODY)
    connections.remove(second)
    connections.hold(first, 10 * SMALL_BODY)


@pytest.mark.parametrize(
    ("state", "seconds", "ends"),
    [
        ({}, 10, False),
        ({}, 10.1, True),
        ({"at_work": True}, FOREVER, False),
        ({"head_since": 100.0}, 1, False),
        ({"head_since": 100.0}, 1.1, True),
        ({"at_work": True, "unread_since": 100.0}, 3, False),
        ({"at_work": True, "unread_since": 100.0}, 3.1, True),
    ],
)
async def test_timeouts(connections, state, seconds, ends):
    peer = Peer(connections)
    for name, value in state.items():
        setattr(peer, name, value)
    connections.clock += seconds
    connections.sweep()
    assert peer.wire.aborted is ends


@pytest.mark.parametrize(
    ("silent_since", "received", "seconds", "fails"),
    [
        (100.0, 0, 2, False),
        (100.0, 10**9, 2.1, True),
        (None, 10**9, 60, False),
        (None, LEAST_RATE * 60, 60, False),
        (None, LEAST_RATE * 60 - 1, 60, True),
        (None, 0, 2, False),
    ],
)
async def test_a_body_must_arrive_in_time(connections, silent_since, received, seconds, fails):
    peer = Peer(connections)
    peer.body, peer.body_since, peer.silent_since, peer.body_bytes = Body(), 100.0, silent_since, received
    connections.clock += seconds
    connections.sweep()
    assert isinstance(peer.body.error, RestError) is fails
    if fails:
        assert (peer.body.error.status, str(peer.body.error)) == (408, "the request's body did not arrive in time")
    assert not peer.wire.aborted
