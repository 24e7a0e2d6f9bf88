import asyncio

import pytest

from puna.backend import Finish, KvCacheUsage, ModelFacts, SequenceRequest
from puna.backend.metadata import enter_request
from puna.runtime.admission import ConcurrencyLimiter, SlotWithdrawnError
from puna.runtime.prompt_memory import blocks_of
from puna.runtime.replicas import FIRST_COSTS, Replica, Replicas

LONG = "a long beginning that several prompts share. " * 200


class Model:
    def __init__(self, slots):
        self.facts = ModelFacts(context_length=4096, parallel=slots, kv_cache_tokens=16384, size_bytes=5)
        self.closed = asyncio.Event()

    def kv_cache_usage(self):
        return KvCacheUsage(1, 2)

    async def aclose(self):
        self.closed.set()


def replica(slots=2):
    return Replica(model=Model(slots), limiter=ConcurrencyLimiter(slots), node="gpu:7", process_id=9)


def replicas(count=3, routing="prefix", slots=2):
    found = Replicas("m", replica(slots), lambda: routing, max_blocks=1000, seed=1)
    for _ in range(count - 1):
        found.add(replica(slots))
    return found


def place(owner, prompt="a"):
    request = SequenceRequest(prompt=prompt)
    return owner.place(request, blocks_of(request))


async def test_a_prompt_goes_where_its_beginning_was_evaluated():
    owner = replicas()
    first = place(owner, LONG)
    first.end()
    for _ in range(20):
        other = place(owner, "another prompt " * 300)
        other.end()
        again = place(owner, LONG + "and more")
        assert again.replica is first.replica
        again.end()


async def test_a_crowded_replica_is_left_when_the_wait_costs_more_than_the_prefill():
    owner = replicas()
    home = place(owner, LONG).replica
    chosen = {place(owner, LONG).replica for _ in range(20)}
    assert home in chosen
    assert len(chosen) > 1


async def test_least_loaded_spreads_and_random_reaches_all():
    for routing in ("least-loaded", "random"):
        owner = replicas(routing=routing)
        assert {place(owner, LONG).replica.number for _ in range(30)} == {1, 2, 3}
    owner = replicas(routing="least-loaded")
    assert sorted(place(owner).replica.number for _ in range(3)) == [1, 2, 3]


async def test_a_session_keeps_its_replica_and_requests_without_one_are_spread():
    owner = replicas(routing="session")

    async def of(session):
        enter_request({"x-session-id": session} if session else {})
        return place(owner).replica.number

    for session in ("one", "two", "three"):
        assert len({await asyncio.create_task(of(session)) for _ in range(5)}) == 1
    assert len({await asyncio.create_task(of(str(number))) for number in range(50)}) == 3
    owner = replicas(routing="session")
    assert len({await asyncio.create_task(of("")) for _ in range(3)}) == 3


async def test_what_runs_and_what_is_still_to_evaluate_is_counted():
    owner = replicas(1)
    [only] = owner.members
    one, two = place(owner, LONG), place(owner, LONG + "more")
    assert only.requests == 2
    # The second prompt shares all of its whole blocks with the first one.
    assert 0.9 < only.prefill_tokens / (len(LONG) / 4) < 1.1
    one.first_token()
    assert only.prefill_tokens < 100
    one.end()
    two.end()
    assert (only.requests, only.prefill_tokens) == (0, 0)


async def test_costs_are_learned_from_answers():
    owner = replicas(1)
    placement, request = place(owner, LONG), SequenceRequest(prompt=LONG)
    counts = {"prompt_tokens": 3000, "cached_prompt_tokens": 1000, "output_tokens": 9}
    finish = Finish(reason="stop", **counts, prompt_eval_ns=int(4e9), eval_ns=1)
    placement.begin()
    placement.finish(request, finish)
    assert owner.costs.prefill_seconds == pytest.approx(0.002)
    assert owner.costs.busy_prefill_seconds == pytest.approx(0.004)
    assert owner.costs.answer_seconds < FIRST_COSTS.answer_seconds
    other = place(owner, LONG)
    other.begin()
    other.finish(request, finish)
    assert owner.costs.prefill_seconds == pytest.approx(0.002)
    assert owner.costs.busy_prefill_seconds < 0.004


async def test_requests_that_wait_for_a_lost_replica_choose_anew():
    owner = replicas(2, slots=1)
    first, second = owner.members

    async def wait():
        async with first.limiter.slot():
            pass

    async with first.limiter.slot():
        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        await asyncio.sleep(0)
        assert owner.queued == 3
        assert owner.lose(first)
        for each in waiting:
            with pytest.raises(SlotWithdrawnError):
                await each
    assert owner.members == [second]
    await first.model.closed.wait()
    assert not owner.lose(second)
    # A replica that has gone before changes nothing.
    assert owner.lose(first)
    assert owner.members == [second]


async def test_a_new_replica_takes_the_last_of_those_that_wait():
    owner = replicas(1, slots=1)
    place(owner)
    ends = []

    async def wait(number):
        placement = place(owner)
        try:
            async with placement.replica.limiter.slot():
                ends.append(number)
        except SlotWithdrawnError:
            ends.append(-number)
        finally:
            placement.end()

    async with owner.members[0].limiter.slot():
        waiting = [asyncio.create_task(wait(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        assert owner.crowded.is_set()
        owner.add(replica(1))
        await waiting[2]
        assert ends == [-3]
    await asyncio.gather(*waiting)
    assert ends == [-3, 1, 2]


async def test_calls_go_to_the_least_loaded_replica():
    owner = replicas(2)
    place(owner).replica.calls += 5
    free = owner.place_call()
    assert free.requests == 0
    assert owner.idlest() is free


async def test_a_row_for_each_replica():
    owner = replicas(2)
    placement = place(owner)
    [row] = [each.entry() for each in owner.members if each is placement.replica]
    assert (row.node, row.process_id, row.slots, row.active, row.queued) == ("gpu:7", 9, 2, 1, 0)
    assert [each.entry().number for each in owner.members] == [1, 2]
    assert (row.size_bytes, row.kv_cache_tokens, row.kv_cache_usage) == (5, 16384, KvCacheUsage(1, 2))
    await owner.aclose()
    assert all(each.model.closed.is_set() for each in owner.members)


@pytest.mark.parametrize("routing", ["prefix", "least-loaded", "session", "random"])
async def test_a_second_attempt_goes_to_another_node_if_there_is_one(routing):
    owner = replicas(count=4, routing=routing)
    *first, other = owner.members
    for each in first:
        each.node = "gone:7"
    request = SequenceRequest(prompt=LONG)
    blocks = blocks_of(request)
    for _ in range(20):
        assert owner.place(request, blocks, avoid="gone:7").replica is other
        assert owner.place_call(avoid="gone:7") is other
    other.node = "gone:7"
    assert owner.place(request, blocks, avoid="gone:7").replica in owner.members
    assert owner.place_call(avoid="gone:7") in owner.members
