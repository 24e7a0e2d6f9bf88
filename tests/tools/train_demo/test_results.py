import ast
import json
from typing import Any

import pytest
from train_demo import results
from train_demo.number_words import in_words
from train_demo.tool_skill import call_tool
from train_demo.words import Random


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"temperature": 17, "unit": "C"}, "temperature 17 C"),
        ({"unit": "C", "temperature": 17}, "unit C, temperature 17"),
        ({"result": 5}, "5"),
        ({"data": {"value": [1, 2.5]}}, "1, 2.5"),
        (["red", "blue"], "red, blue"),
        ([], "nothing"),
        ([{"a": 1}, {"a": 2}], "a 1; a 2"),
        ({"wind_speed": 3, "open": True, "note": None}, "wind speed 3, open yes, note none"),
        ({"user": {"name": "Anna", "tags": ["x", "y"]}}, "user (name Anna, tags x, y)"),
        ({"rows": [{"id": 1}, {"id": 2}]}, "rows (id 1; id 2)"),
    ],
)
def test_a_value_in_words(value: Any, said: str) -> None:
    assert results.in_words(value) == said


def test_members_that_repeat_the_question_are_left_out() -> None:
    assert results.in_words({"city": "Bern", "temp": 3}, skip=("city",)) == "temp 3"


def test_every_notation_holds_the_value() -> None:
    rng = Random("notations")
    for _ in range(300):
        value = results.anything(rng)
        text = results.written(rng, value)
        try:
            read = json.loads(text)
        except json.JSONDecodeError:
            read = ast.literal_eval(text)
        assert read == value


def test_what_the_model_says_of_a_result_is_no_json() -> None:
    rng = Random("answers")
    told = [episode for episode in (call_tool(rng)[1] for _ in range(600)) if len(episode) == 4]
    assert len(told) > 300
    for *_, answer in told:
        assert not set("{}[]") & set(answer.content)
        assert answer.content.endswith(".")


def test_a_failure_is_told_as_one() -> None:
    rng = Random("failures")
    for _ in range(100):
        _, said = results.an_error(rng)
        assert said.startswith("The tool reports an error: ")


@pytest.mark.parametrize(
    ("number", "words"), [(0, "zero"), (13, "thirteen"), (20, "twenty"), (47, "forty-seven"), (90, "ninety")]
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


def test_every_number_below_a_hundred_has_words_of_its_own() -> None:
    assert len({in_words(number) for number in range(100)}) == 100
