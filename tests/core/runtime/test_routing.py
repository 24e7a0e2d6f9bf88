"""Which replica a request goes to."""

from collections import Counter
from dataclasses import dataclass

import pytest

from puna.runtime.routing import Costs, PrefixRouting, RoutedRequest, policies

COSTS = Costs(prefill_seconds=0.001, busy_prefill_seconds=0.002, answer_seconds=4.0)


@dataclass
class Replica:
    number: int = 0
    slots: int = 4
    requests: int = 0
    prefill_tokens: int = 0


def idle(count):
    return [Replica(number) for number in range(count)]


@pytest.mark.parametrize("name", ["random", "least-loaded", "prefix"])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_idle_replicas_share_requests_without_a_prefix(name, count):
    policy = policies(1, COSTS)[name]
    chosen = Counter(policy.choose(RoutedRequest(100), idle(count)) for _ in range(count * 100))
    assert len(chosen) == count
    assert max(chosen.values()) < 200


def test_least_loaded_counts_requests_for_each_slot():
    replicas = [Replica(0, slots=16, requests=8), Replica(1, slots=4, requests=3), Replica(2, slots=4, requests=4)]
    assert policies(1, COSTS)["least-loaded"].choose(RoutedRequest(1), replicas) == 0


def test_a_session_stays_when_another_replica_goes():
    policy = policies(1, COSTS)["session"]
    before = {session: policy.choose(RoutedRequest(1, session), idle(5)) for session in range(200)}
    without = [each for each in idle(5) if each.number != 2]
    for session, index in before.items():
        after = without[policy.choose(RoutedRequest(1, session), without)].number
        assert after == index or index == 2
    assert set(before.values()) == set(range(5))


def test_prefix_goes_where_the_beginning_is():
    replicas = idle(3)
    request = RoutedRequest(1000, holders=((2, 900), (1, 400)))
    assert PrefixRouting(1, COSTS).choose(request, replicas) == 2


def test_prefix_stays_for_as_long_as_the_saved_prefill_is_longer_than_the_queue():
    policy = PrefixRouting(1, COSTS)
    request = RoutedRequest(1000, holders=((0, 900),))
    # 100 tokens beside two sequences take 0.2 s there, and 1,000 tokens on an idle replica take 1 s.
    assert policy.choose(request, [Replica(0, requests=2), Replica(1)]) == 0
    # A full replica frees a slot after 1 s.
    assert policy.choose(request, [Replica(0, requests=4), Replica(1)]) == 1
    # Prompts of others wait in front: 450 tokens take 0.9 s.
    assert policy.choose(request, [Replica(0, requests=2, prefill_tokens=450), Replica(1)]) == 1


def test_prefix_sends_a_long_prompt_where_it_delays_fewer_answers():
    policy = PrefixRouting(1, COSTS)
    # The first token would come 0.1 s sooner from the crowded replica, whose three answers would wait for the prompt.
    request = RoutedRequest(1000, holders=((0, 50),))
    assert policy.choose(request, [Replica(0, requests=3), Replica(1, requests=1)]) == 1


def test_prefix_finds_a_holder_among_a_thousand():
    replicas = [Replica(number, requests=2) for number in range(1000)]
    assert PrefixRouting(1, COSTS).choose(RoutedRequest(1000, holders=((777, 950),)), replicas) == 777


def test_prefix_avoids_full_replicas_among_a_thousand():
    replicas = [Replica(number, requests=8 if number % 2 else 1) for number in range(1000)]
    policy = PrefixRouting(1, COSTS)
    crowded = sum(policy.choose(RoutedRequest(100), replicas) % 2 for _ in range(1000))
    assert crowded < 20  # one in 256 draws eight full ones


def test_a_prompt_that_is_cached_whole_still_costs_a_token():
    policy = PrefixRouting(1, COSTS)
    assert policy.first_token_seconds(RoutedRequest(100), Replica(), 100) == pytest.approx(0.001)
