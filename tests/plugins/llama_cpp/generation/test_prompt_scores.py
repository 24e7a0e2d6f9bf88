import pytest

from puna_llama_cpp.generation.prompt_scores import PromptScores

PROMPT = [10, 11, 12, 13, 14, 15]


def test_rows_are_those_of_the_tokens_before_the_scored_ones():
    scores = PromptScores(PROMPT, 2)
    assert scores.rows(0, 6) == range(1, 5)
    assert [scores.target(row) for row in scores.rows(0, 6)] == [12, 13, 14, 15]
    assert scores.reusable == 1


@pytest.mark.parametrize("parts", [(6,), (1, 5), (2, 2, 2), (1, 1, 1, 1, 1, 1), (5, 1)])
def test_parts_of_a_prompt_score_each_token_once(parts):
    scores, start, found = PromptScores(PROMPT, 2), 0, []
    for count in parts:
        rows = scores.rows(start, count)
        found += [scores.target(start + row) for row in rows]
        scores.done += len(rows)
        start += count
    assert found == [12, 13, 14, 15]


def test_tokens_that_are_evaluated_again_are_not_scored_again():
    scores = PromptScores(PROMPT, 2)
    scores.done = 2
    assert scores.rows(0, 3) == range(3, 3)
    assert [scores.target(row) for row in scores.rows(0, 6)] == [14, 15]


def test_the_last_token_needs_no_row():
    assert len(PromptScores(PROMPT, 1).rows(5, 1)) == 0


def test_a_limit_of_rows_limits_tokens_from_the_first_scored_one_on():
    scores = PromptScores(PROMPT, 4)
    assert scores.limit(0, 3, 0) == 3
    assert scores.limit(0, 6, 1) == 4
    assert scores.limit(0, 6, 2) == 6
    assert scores.limit(4, 2, 0) == 0


def test_a_prompt_without_scored_tokens_has_no_limit():
    scores = PromptScores(PROMPT, None)
    assert (len(scores.rows(0, 6)), scores.limit(0, 6, 0), scores.reusable) == (0, 6, None)
