"""One replica in virtual time, against sums by hand."""

from dataclasses import replace

import pytest
from tools.simulate.prompts import PrefixCache, Prompt
from tools.simulate.replicas import HostCosts, Job, SimulatedReplica

COSTS = HostCosts(step=0.01, sequence=0.001, prefill=0.0001, batch=100, slots=2, context_length=4096)


def play(*jobs, costs=COSTS):
    """Run jobs that arrive in order, and return the replica."""
    replica = SimulatedReplica(0, costs, PrefixCache(costs.slots))
    waiting = list(jobs)
    while waiting or replica.requests:
        arrival = waiting[0].arrived if waiting else float("inf")
        if arrival < replica.next_event:
            replica.submit(waiting.pop(0), arrival)
        else:
            list(replica.advance(replica.next_event))
    return replica


def test_one_request():
    job = Job(Prompt().unique(250), 11, arrived=1.0)
    replica = play(job)
    # Three steps with 100, 100 and 50 prompt tokens, then ten steps of decoding.
    assert job.first - job.arrived == pytest.approx(3 * 0.01 + 250 * 0.0001)
    assert job.ended - job.first == pytest.approx(10 * 0.011)
    assert replica.busy_seconds == pytest.approx(job.ended - job.arrived)
    assert (replica.requests, replica.prefill_tokens, replica.next_event) == (0, 0, float("inf"))


def test_a_beginning_is_evaluated_once():
    system = Prompt().unique(200)
    first, second = Job(system.unique(10), 1, 0.0), Job(system.unique(10), 1, 5.0)
    play(first, second)
    assert (first.cached, second.cached) == (0, 200)
    assert second.first - second.arrived == pytest.approx(0.01 + 10 * 0.0001)


def test_a_later_turn_finds_prompt_and_answer():
    prompt = Prompt().unique(100)
    answered = prompt.unique(20)
    following = Job(answered.unique(5), 1, 9.0)
    play(Job(prompt, 20, 0.0, answered), following)
    assert following.cached == 120


def test_a_third_request_waits_for_a_slot():
    jobs = [Job(Prompt().unique(10), 50, 0.0) for _ in range(3)]
    play(*jobs)
    assert jobs[2].first > min(job.ended for job in jobs[:2])
    assert jobs[2].first - jobs[1].ended < 0.05


def test_an_arrival_ends_a_stretch_with_the_running_step():
    long, late = Job(Prompt().unique(10), 1000, 0.0), Job(Prompt().unique(10), 2, 1.0)
    play(long, late)
    assert late.first - late.arrived < 0.03
    # The second request makes one step longer by its prompt, and the steps beside it by a sequence.
    assert long.ended == pytest.approx(0.01 + 0.001 + 999 * 0.011 + 0.001, abs=0.003)


def test_a_prompt_beside_streams_gets_the_budget_of_a_host():
    costs = HostCosts(step=0.04, sequence=0.001, prefill=0.002, slots=8)
    streams = [Job(Prompt().unique(10), 500, 0.0) for _ in range(4)]
    prompt = Job(Prompt().unique(250), 1, 5.0)
    play(*streams, prompt, costs=costs)
    # A step of decoding takes 44 ms. One prompt beside four streams gets a quarter more than that: 27 tokens at the
    # true price. The learned price falls to it from that of the short prompts at the beginning.
    steps = (prompt.first - prompt.arrived - 250 * 0.002) / 0.044
    assert 250 / 27 < steps < 250 / 16


def test_a_part_of_a_prompt_costs_time_beside_a_stream_and_so_does_a_copy():
    def first(costs):
        chat = Prompt().unique(200)
        message = Job(chat.unique(20), 1, 1.5)
        # The stream runs two slots away from the chat, which is copied next to it with its answer of one token.
        play(
            Job(chat, 1, 0.0),
            Job(Prompt().unique(10), 1, 0.5),
            Job(Prompt().unique(10), 100, 1.0),
            message,
            costs=costs,
        )
        assert message.cached == 200
        return message.first

    free = replace(COSTS, slots=4)
    costly = replace(free, part=0.004, part_attention=1e-5, copy=1e-6)
    assert first(costly) - first(free) == pytest.approx(0.004 + 200 * 1e-5 + 201 * 1e-6)


def test_tokens_cost_more_behind_others():
    costs = replace(COSTS, attention=1e-5, prefill_attention=1e-6, request=0.5)
    prompt = Prompt().unique(200)
    job, message = Job(prompt, 11, 0.0), Job(prompt.unique(20), 1, 10.0)
    play(job, message, costs=costs)
    assert job.first == pytest.approx(0.5 + 2 * 0.01 + 200 * (0.0001 + 1e-6 * 100))
    assert job.ended - job.first == pytest.approx(10 * (0.011 + 1e-5 * 206), rel=1e-3)
    assert message.first - message.arrived == pytest.approx(0.5 + 0.01 + 20 * (0.0001 + 1e-6 * 210))


def test_a_waiting_request_starts_with_the_step_after_the_answer_that_frees_its_slot():
    jobs = [Job(Prompt().unique(10), 5, arrived=0.0) for _ in range(3)]
    play(*jobs)
    # The other slot decodes meanwhile.
    assert jobs[2].first - jobs[0].ended == pytest.approx(0.011 + 10 * 0.0001)
