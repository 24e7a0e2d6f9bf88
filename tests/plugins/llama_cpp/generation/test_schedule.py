import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna_llama_cpp.generation.schedule import PREFILL_BESIDE_STREAMS, Pace, Share, Want, plan


def test_a_prompt_alone_fills_the_batch():
    assert plan([Want("a", 1000, False)], 512) == [Share("a", 512, False)]


def test_the_rest_of_a_prompt_completes_it():
    assert plan([Want("a", 7, False)], 512) == [Share("a", 7, True)]


def test_beside_a_stream_a_prompt_gets_a_small_share():
    assert plan([Want("a", 1000, False), Want("b", 1, True)], 512) == [
        Share("b", 1, True),
        Share("a", PREFILL_BESIDE_STREAMS, False),
    ]


def test_prompts_are_served_in_order_of_priority_then_arrival():
    wants = [Want("a", 30, False), Want("b", 30, False), Want("c", 30, False, priority=1)]
    assert plan(wants, 70) == [Share("c", 30, True), Share("a", 30, True), Share("b", 10, False)]


@given(st.lists(st.tuples(st.integers(1, 900), st.booleans(), st.integers(-1, 1)), max_size=12), st.integers(12, 600))
def test_streams_never_wait_and_the_batch_is_never_too_large(drawn, room):
    wants = [
        Want(n, 1 if streaming else pending, streaming, priority)
        for n, (pending, streaming, priority) in enumerate(drawn)
    ]
    shares = plan(wants, room)
    counts = {share.key: share.count for share in shares}
    assert sum(counts.values()) <= room
    assert len(counts) == len(shares)
    for want in wants:
        if want.streaming:
            assert counts[want.key] == 1
        assert counts.get(want.key, 0) <= want.pending
    assert all(share.completes == (share.count == wants[share.key].pending) for share in shares)
    assert bool(shares) == bool(wants)  # whoever there is, somebody gets on


@pytest.fixture
def pace():
    """A machine whose step takes 20 ms and a prompt's token 2 ms."""
    pace = Pace()
    for _ in range(50):
        pace.observe(7, 0, 0.020)
        pace.observe(7, 10, 0.040)
    return pace


def test_prompts_lengthen_a_step_by_a_bounded_part(pace):
    step = 0.020 + 0.002 * pace.beside(7, 1)
    assert 1.5 < step / 0.020 < 3


def test_where_more_wait_to_begin_they_get_more(pace):
    assert pace.beside(1, 7) == pytest.approx(4 * pace.beside(1, 1), abs=4)


def test_prompts_always_get_on(pace):
    for _ in range(20):
        pace.observe(7, 10, 10.0)
    assert pace.beside(7, 1) > 0


def test_the_streams_own_step_is_measured_before_anything_is_put_beside_it():
    pace = Pace()
    pace.observe(0, 512, 0.512)
    assert pace.beside(7, 1) == 0
    pace.observe(7, 0, 0.020)
    assert pace.beside(7, 1) > 0


def test_under_load_it_is_measured_again(pace):
    steps = 0
    while pace.beside(7, 1):
        pace.observe(7, 10, 0.040)
        steps += 1
    assert 10 < steps < 100
    pace.observe(16, 0, 0.030)
    assert pace.beside(16, 0) == pytest.approx(0.030 / 0.002, abs=1)
