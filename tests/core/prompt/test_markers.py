from puna.prompt.markers import first_of, first_or_certain, overlap


def test_overlap_is_the_longest_end_that_could_begin_the_marker() -> None:
    assert overlap("a<", "<think>") == 1
    assert overlap("aabaa", "aab") == 2
    assert overlap("x", "<think>") == 0


def test_the_first_marker_is_found_whatever_order_they_are_given_in() -> None:
    assert first_of(("</a>", "<b>"), "x<b></a>") == (1, "<b>")
    assert first_of(("<b>", "</a>"), "x<b></a>") == (1, "<b>")
    assert first_of(("<b>",), "x") == (-1, "")


def test_empty_markers_do_not_count() -> None:
    assert first_of(("", "<b>"), "x<b>") == (1, "<b>")
    assert first_or_certain(("",), "x<") == (2, "")


def test_without_a_marker_the_certain_beginning_excludes_the_start_of_every_marker() -> None:
    assert first_or_certain(("<bc>", "<b>"), "x<b") == (1, "")
    assert first_or_certain((), "x<b") == (3, "")
