import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna_llama_cpp.generation.prefix_cache import (
    MIN_COPY_GAIN,
    CachedPrefix,
    InFlightPrefill,
    Placement,
    PrefixWait,
    choose_slot,
    common_length,
    padding_slots,
    prefill_to_wait_for,
)

CHAT = list(range(100))


@given(st.lists(st.integers(0, 1), max_size=200), st.lists(st.integers(0, 1), max_size=200))
def test_common_length(left, right):
    length = common_length(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]


def test_nothing_is_idle():
    assert choose_slot([1], "", [CachedPrefix(0, [], False, 0)]) is None


def test_a_chat_goes_on_where_it_was():
    prefixes = [CachedPrefix(0, [7] * 50, True, 1), CachedPrefix(1, CHAT, True, 2)]
    assert choose_slot([*CHAT, 5, 6], "", prefixes) == Placement(1, 100)


def test_one_token_is_left_to_evaluate():
    assert choose_slot(CHAT, "", [CachedPrefix(0, CHAT, True, 1)]) == Placement(0, 99)


def test_what_is_new_takes_the_slot_unused_for_longest():
    prefixes = [CachedPrefix(0, [7] * 50, True, 2), CachedPrefix(1, [8] * 50, True, 1)]
    assert choose_slot([1, 2, 3], "", prefixes) == Placement(1, 0)


def test_a_busy_slot_lends_its_prefix():
    prefixes = [CachedPrefix(0, CHAT, False, 2), CachedPrefix(1, [], True, 0)]
    assert choose_slot([*CHAT[:80], 5], "", prefixes) == Placement(1, 80, copied_from=0)


def test_a_small_prefix_is_not_worth_a_copy():
    prefixes = [CachedPrefix(0, CHAT, False, 2), CachedPrefix(1, [], True, 0)]
    assert choose_slot([*CHAT[: MIN_COPY_GAIN - 1], 5], "", prefixes) == Placement(1, 0)


def test_a_shared_beginning_does_not_cost_another_chat_its_place():
    prefixes = [CachedPrefix(0, CHAT, True, 2), CachedPrefix(1, [], True, 0)]
    assert choose_slot([*CHAT[:40], 5], "", prefixes) == Placement(1, 40, copied_from=0)
    assert choose_slot([*CHAT[:10], 5], "", prefixes) == Placement(1, 0)


def test_chats_with_a_long_common_beginning_each_keep_their_slots():
    prefixes = [CachedPrefix(0, CHAT, True, 2, generated=10), CachedPrefix(1, [], True, 0)]
    assert choose_slot([*CHAT[:60], 5], "", prefixes) == Placement(1, 60, copied_from=0)
    busy = [CachedPrefix(0, [], True, 0), CachedPrefix(1, CHAT, True, 2, generated=10), CachedPrefix(2, [], False, 3)]
    assert choose_slot([*CHAT[:60], 5], "", busy) == Placement(1, 60, moved_to=0)


@pytest.mark.parametrize("common", [60, 53])  # all of the prompt, or all but the beginning of a thought
def test_an_answer_that_is_written_anew_takes_the_place_of_the_old_one(common):
    prefixes = [CachedPrefix(0, CHAT, True, 2, generated=40), CachedPrefix(1, [], True, 0)]
    assert choose_slot([*CHAT[:common], 5], "", prefixes) == Placement(0, common)


def test_a_short_chat_does_not_cost_a_long_one_its_place():
    lost = 100 - 60
    for length, kept in ((4 * lost, True), (4 * lost + 1, False)):
        prefixes = [CachedPrefix(0, CHAT, True, 2), CachedPrefix(1, [7] * length, True, 1)]
        expected = Placement(1, 60, copied_from=0) if kept else Placement(0, 60)
        assert choose_slot([*CHAT[:60], 5], "", prefixes) == expected


def test_a_chat_that_goes_on_elsewhere_leaves_its_slot():
    other = [7] * 50
    prefixes = [CachedPrefix(0, CHAT, True, 1), CachedPrefix(1, other, True, 2), CachedPrefix(2, [], False, 3)]
    assert choose_slot([*CHAT, 5], "", prefixes) == Placement(1, 100, copied_from=0, moved_to=0, vacated=True)


def test_the_only_slot_is_taken_whatever_it_holds():
    assert choose_slot([*CHAT[:40], 5], "", [CachedPrefix(0, CHAT, True, 2)]) == Placement(0, 40)


def test_another_salt_shares_nothing():
    prefixes = [CachedPrefix(0, CHAT, True, 2, "mine"), CachedPrefix(1, [], True, 0)]
    assert choose_slot([*CHAT, 5], "yours", prefixes) == Placement(1, 0)
    assert choose_slot([*CHAT, 5], "mine", prefixes) == Placement(0, 100)


def test_a_new_sequence_goes_beside_running_ones():
    prefixes = [
        CachedPrefix(0, [], True, 0),
        CachedPrefix(1, [], True, 1),
        CachedPrefix(2, [], False, 3),
        CachedPrefix(3, [], True, 2),
    ]
    assert choose_slot([1, 2, 3], "", prefixes) == Placement(1, 0)


def test_what_lies_there_moves_to_the_slot_unused_for_longest():
    prefixes = [CachedPrefix(0, [], True, 0), CachedPrefix(1, CHAT, True, 2), CachedPrefix(2, [], False, 3)]
    assert choose_slot([7, 7, 7], "", prefixes) == Placement(1, 0, moved_to=0)
    assert choose_slot([*CHAT, 5], "", prefixes) == Placement(1, 100)


def test_a_chat_that_lies_elsewhere_is_copied_beside_running_ones():
    prefixes = [CachedPrefix(0, CHAT, True, 1), CachedPrefix(1, [], True, 2), CachedPrefix(2, [], False, 3)]
    assert choose_slot([*CHAT, 5], "", prefixes) == Placement(1, 100, copied_from=0, vacated=True)


def test_a_long_content_is_not_copied_for_little():
    prefixes = [CachedPrefix(0, list(range(9000)), False, 2), CachedPrefix(1, [], True, 0)]
    assert choose_slot([*range(100), -1], "", prefixes) == Placement(1, 0)


def test_a_prompt_waits_for_one_that_begins_like_it():
    in_flight = [InFlightPrefill(4, CHAT, 10)]
    assert prefill_to_wait_for([*CHAT[:80], 5], "", [], in_flight) == PrefixWait(4, shared=80, cached=0)
    assert prefill_to_wait_for([*CHAT[:80], 5], "", [CachedPrefix(0, CHAT[:20], True, 1)], in_flight) == PrefixWait(
        4, shared=80, cached=20
    )
    assert prefill_to_wait_for(CHAT, "", [], [*in_flight, InFlightPrefill(5, CHAT[:90], 10)]) == PrefixWait(
        4, shared=99, cached=0
    )
    assert prefill_to_wait_for([*CHAT[: MIN_COPY_GAIN - 1], 5], "", [], in_flight) is None
    assert prefill_to_wait_for([*CHAT[:80], 5], "salt", [], in_flight) is None
    assert prefill_to_wait_for([*CHAT[:80], 5], "", [CachedPrefix(0, CHAT, True, 1)], in_flight) is None
    assert prefill_to_wait_for([*CHAT[:80], 5], "", [], [InFlightPrefill(4, CHAT, 80)]) is None


def test_narrow_gaps_are_filled():
    assert padding_slots([0, 1, 3, 6, 10]) == [2, 4, 5]
    assert padding_slots([4]) == []
