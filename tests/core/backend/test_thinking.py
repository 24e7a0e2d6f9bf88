import pytest

from puna.backend.thinking import ThinkingBudget, ThinkingMarkers, ThinkingTracker

THINK = {"starts": ("<think>",), "ends": ("</think>",), "closings": ("</think>",)}


def tracker(most, **markers):
    return ThinkingTracker(ThinkingBudget(max_tokens=most, markers=ThinkingMarkers(**(THINK | markers))))


def fed(tracker, tokens):
    """Feed tokens as a backend does; return those that were sampled before each closing."""
    sampled = []
    for token in tokens:
        if tracker.due:
            break
        tracker.feed(token.encode())
        sampled.append(token)
    return sampled


def test_tokens_between_the_markers_count():
    counted = tracker(100)
    fed(counted, ["<think>", "a", " b", "\n", "</think>", "c", "d"])
    assert (counted.spent, counted.due, counted.over) == (3, False, True)


def test_the_thinking_is_due_to_be_closed_when_exactly_as_many_tokens_are_spent():
    counted = tracker(3)
    assert fed(counted, ["<think>", "a", "b", "c", "d"]) == ["<think>", "a", "b", "c"]
    assert counted.close() == "</think>"
    assert (counted.spent, counted.due, counted.over) == (3, False, True)


@pytest.mark.parametrize("most", [0, 1])
def test_thinking_that_the_prompt_begins_counts_from_the_first_token(most):
    assert fed(tracker(most, open=True), ["a", "b"]) == ["a"][:most]


def test_a_start_that_the_model_repeats_does_not_count():
    counted = tracker(2, open=True)
    assert fed(counted, ["<th", "ink>", "a", "b", "c"]) == ["<th", "ink>", "a", "b"]
    assert counted.spent == 2


def test_what_only_looks_like_a_repeated_start_counts():
    counted = tracker(100, open=True)
    fed(counted, ["<th", "a", "</think>"])
    assert counted.spent == 2


@pytest.mark.parametrize("end", [["</think>"], ["</", "th", "ink>"], ["</", "think", ">x"]])
def test_a_marker_of_several_tokens_does_not_count(end):
    counted = tracker(100)
    fed(counted, ["<th", "ink>", "a", "b", *end])
    assert counted.spent == 2


def test_a_token_in_which_the_end_begins_counts():
    counted = tracker(100, open=True)
    fed(counted, ["a", "b</", "think>"])
    assert counted.spent == 2


def test_a_long_thought_is_counted_in_bounded_memory():
    counted = tracker(10**6, open=True)
    fed(counted, ["word "] * 10_000)
    assert counted.spent == 10_000
    assert len(counted._held) < 20
    fed(counted, ["</thi", "nk>"])
    assert counted.spent == 10_000


def test_content_before_a_start_is_no_thinking():
    counted = tracker(0)
    fed(counted, ["\n", " x", "<think>", "a"])
    assert (counted.spent, counted.over) == (0, True)


def test_white_space_before_the_start_is_passed_over():
    assert fed(tracker(0), ["\n", "<think>", "a"]) == ["\n", "<think>"]


def test_all_thoughts_share_one_budget():
    counted = tracker(3, again=True, closings=("first", "later"))
    assert fed(counted, ["x<think>", "a", "b", "</think>", "y", "<thi", "nk>", "c", "d"])[-1] == "c"
    assert counted.close() == "first"
    assert fed(counted, ["z", "<think>", "e"]) == ["z", "<think>"]
    assert [counted.close(), counted.close()] == ["later", "later"]
    assert counted.spent == 3


def test_the_first_of_several_ends_counts():
    counted = tracker(100, ends=("</think>", "<tool_call>"))
    fed(counted, ["<think>", "a", "<tool_call>", "b", "</think>"])
    assert counted.spent == 1


def test_half_a_character_counts_as_a_token():
    counted = tracker(100, open=True)
    for raw in (b"\xf0\x9f", b"\x98\x80", b"</think>"):
        counted.feed(raw)
    assert counted.spent == 2
