import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna_llama_cpp.generation.schedule import (
    DEFAULT_PREFILL_TOKENS,
    LEAST_DECODE_SECONDS,
    BatchShare,
    PrefillBudget,
    WorkItem,
    plan,
)


def test_a_prompt_alone_fills_the_batch():
    assert plan([WorkItem("a", 1000, False)], 512) == [BatchShare("a", 512, False)]


def test_the_rest_of_a_prompt_completes_it():
    assert plan([WorkItem("a", 7, False)], 512) == [BatchShare("a", 7, True)]


def test_beside_a_stream_a_prompt_gets_a_small_share():
    assert plan([WorkItem("a", 1000, False), WorkItem("b", 1, True)], 512) == [
        BatchShare("b", 1, True),
        BatchShare("a", DEFAULT_PREFILL_TOKENS, False),
    ]


@pytest.mark.parametrize(("pending", "count"), [(41, 39), (42, 40), (40, 40), (3, 3)])
def test_no_part_of_a_prompt_beside_a_stream_is_a_single_token(pending, count):
    items = [WorkItem("a", pending, False), WorkItem("b", 1, True)]
    assert plan(items, 512, 40)[1:] == [BatchShare("a", count, count == pending)]
    # A second prompt does not begin with the one token that is left.
    items = [WorkItem("a", 39, False), WorkItem("b", 1, True), WorkItem("c", 100, False)]
    assert plan(items, 512, 40)[1:] == [BatchShare("a", 39, True)]


@pytest.mark.parametrize("room", [1, 2, 3])
def test_a_prompt_beside_a_stream_gets_on_in_the_smallest_batch(room):
    left = 3
    while left:
        (_, share) = plan([WorkItem("a", left, False), WorkItem("b", 1, True)], 1 + room, 8)
        left -= share.count


def test_prompts_are_served_in_order_of_priority_then_arrival():
    items = [WorkItem("a", 30, False), WorkItem("b", 30, False), WorkItem("c", 30, False, priority=1)]
    assert plan(items, 70) == [BatchShare("c", 30, True), BatchShare("a", 30, True), BatchShare("b", 10, False)]


@given(st.lists(st.tuples(st.integers(1, 900), st.booleans(), st.integers(-1, 1)), max_size=12), st.integers(12, 600))
def test_streams_never_wait_and_the_batch_is_never_too_large(drawn, room):
    items = [
        WorkItem(n, 1 if decoding else pending, decoding, priority)
        for n, (pending, decoding, priority) in enumerate(drawn)
    ]
    shares = plan(items, room)
    counts = {share.key: share.count for share in shares}
    assert sum(counts.values()) <= room
    assert len(counts) == len(shares)
    for want in items:
        if want.decoding:
            assert counts[want.key] == 1
        assert counts.get(want.key, 0) <= want.pending
    assert all(share.completes == (share.count == items[share.key].pending) for share in shares)
    assert bool(shares) == bool(items)  # whoever there is, somebody gets on


@pytest.fixture
def budget():
    """A machine whose step takes 20 ms and a prompt's token 2 ms."""
    budget = PrefillBudget()
    for _ in range(50):
        budget.observe(7, 0, 0.020)
        budget.observe(7, 10, 0.040)
    return budget


def test_prompts_lengthen_a_step_by_a_bounded_part(budget):
    step = 0.020 + 0.002 * budget.tokens(7, 1)
    assert 1.5 < step / 0.020 < 3


def test_beside_a_fast_stream_a_prompt_gets_more_than_the_streams_own_step():
    budget = PrefillBudget()
    for _ in range(50):
        budget.observe(1, 0, 0.003)
        budget.observe(1, 20, 0.023)
    assert budget.tokens(1, 1) == pytest.approx(2 * LEAST_DECODE_SECONDS / 0.001, abs=1)


def test_where_more_wait_to_begin_they_get_more(budget):
    assert budget.tokens(1, 7) == pytest.approx(4 * budget.tokens(1, 1), abs=4)


def test_prompts_always_get_on(budget):
    for _ in range(20):
        budget.observe(7, 10, 10.0)
    assert budget.tokens(7, 1) > 0


def test_the_streams_own_step_is_measured_before_anything_is_put_beside_it():
    budget = PrefillBudget()
    budget.observe(0, 512, 0.512)
    assert budget.tokens(7, 1) == 0
    budget.observe(7, 0, 0.020)
    assert budget.tokens(7, 1) > 0


def test_under_load_it_is_measured_again(budget):
    steps = 0
    while budget.tokens(7, 1):
        budget.observe(7, 10, 0.040)
        steps += 1
    assert 10 < steps < 100
    budget.observe(16, 0, 0.030)
    assert budget.tokens(16, 0) == pytest.approx(0.030 / 0.002, abs=1)
