from hypothesis import given
from hypothesis import strategies as st

from puna_llama_cpp.generation.prefix_cache import (
    COPY_GAIN,
    Coming,
    Content,
    Place,
    Wait,
    common_length,
    gaps,
    place,
    wait,
)

CHAT = list(range(100))


@given(st.lists(st.integers(0, 1), max_size=200), st.lists(st.integers(0, 1), max_size=200))
def test_common_length(left, right):
    length = common_length(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]


def test_nothing_is_idle():
    assert place([1], "", [Content(0, [], False, 0)]) is None


def test_a_chat_goes_on_where_it_was():
    contents = [Content(0, [7] * 50, True, 1), Content(1, CHAT, True, 2)]
    assert place([*CHAT, 5, 6], "", contents) == Place(1, 100)


def test_one_token_is_left_to_evaluate():
    assert place(CHAT, "", [Content(0, CHAT, True, 1)]) == Place(0, 99)


def test_what_is_new_takes_the_slot_unused_for_longest():
    contents = [Content(0, [7] * 50, True, 2), Content(1, [8] * 50, True, 1)]
    assert place([1, 2, 3], "", contents) == Place(1, 0)


def test_a_busy_slot_lends_its_prefix():
    contents = [Content(0, CHAT, False, 2), Content(1, [], True, 0)]
    assert place([*CHAT[:80], 5], "", contents) == Place(1, 80, copied_from=0)


def test_a_small_prefix_is_not_worth_a_copy():
    contents = [Content(0, CHAT, False, 2), Content(1, [], True, 0)]
    assert place([*CHAT[: COPY_GAIN - 1], 5], "", contents) == Place(1, 0)


def test_a_shared_beginning_does_not_cost_another_chat_its_place():
    contents = [Content(0, CHAT, True, 2), Content(1, [], True, 0)]
    assert place([*CHAT[:40], 5], "", contents) == Place(1, 40, copied_from=0)
    assert place([*CHAT[:10], 5], "", contents) == Place(1, 0)


def test_the_only_slot_is_taken_whatever_it_holds():
    assert place([*CHAT[:40], 5], "", [Content(0, CHAT, True, 2)]) == Place(0, 40)


def test_another_salt_shares_nothing():
    contents = [Content(0, CHAT, True, 2, "mine"), Content(1, [], True, 0)]
    assert place([*CHAT, 5], "yours", contents) == Place(1, 0)
    assert place([*CHAT, 5], "mine", contents) == Place(0, 100)


def test_who_comes_while_others_run_goes_beside_them():
    contents = [Content(0, [], True, 0), Content(1, [], True, 1), Content(2, [], False, 3), Content(3, [], True, 2)]
    assert place([1, 2, 3], "", contents) == Place(1, 0)


def test_what_lies_there_moves_to_the_slot_unused_for_longest():
    contents = [Content(0, [], True, 0), Content(1, CHAT, True, 2), Content(2, [], False, 3)]
    assert place([7, 7, 7], "", contents) == Place(1, 0, moved_to=0)
    assert place([*CHAT, 5], "", contents) == Place(1, 100)


def test_a_chat_that_lies_elsewhere_is_copied_beside_those_who_run():
    contents = [Content(0, CHAT, True, 1), Content(1, [], True, 2), Content(2, [], False, 3)]
    assert place([*CHAT, 5], "", contents) == Place(1, 100, copied_from=0)


def test_a_long_content_is_not_copied_for_little():
    contents = [Content(0, list(range(9000)), False, 2), Content(1, [], True, 0)]
    assert place([*range(100), -1], "", contents) == Place(1, 0)


def test_a_prompt_waits_for_one_that_begins_like_it():
    coming = [Coming(4, CHAT, 10)]
    assert wait([*CHAT[:80], 5], "", [], coming) == Wait(4, shared=80, present=0)
    assert wait([*CHAT[:80], 5], "", [Content(0, CHAT[:20], True, 1)], coming) == Wait(4, shared=80, present=20)
    assert wait(CHAT, "", [], [*coming, Coming(5, CHAT[:90], 10)]) == Wait(4, shared=99, present=0)
    assert wait([*CHAT[: COPY_GAIN - 1], 5], "", [], coming) is None
    assert wait([*CHAT[:80], 5], "salt", [], coming) is None
    assert wait([*CHAT[:80], 5], "", [Content(0, CHAT, True, 1)], coming) is None
    assert wait([*CHAT[:80], 5], "", [], [Coming(4, CHAT, 80)]) is None


def test_narrow_gaps_are_filled():
    assert gaps([0, 1, 3, 6, 10]) == [2, 4, 5]
    assert gaps([4]) == []
