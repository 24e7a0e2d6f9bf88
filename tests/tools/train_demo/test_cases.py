import json
import re
from collections.abc import Iterable
from typing import Any

from train_demo import cases as asked
from train_demo import chat_skills, facts
from train_demo.cases import Case, cases
from train_demo.graders import Reply, right, stopped, thought_as_asked
from train_demo.phrasings import PHRASES
from train_demo.words import Random


def _bare(texts: Iterable[str]) -> set[str]:
    """Without case, punctuation and spacing, which training varies itself."""
    return {" ".join(re.findall(r"[a-z0-9{}'+]+", text.lower())) for text in texts}


def test_no_phrasing_of_the_measure_is_trained_on() -> None:
    for held, used in (
        (
            (text for texts in asked.FACT_QUESTIONS.values() for text in texts),
            (q for f in facts.FACTS for q in f.questions),
        ),
        (asked.FACT_WRAPPERS, PHRASES["indirect"]),
        (asked.CAPITAL_QUESTIONS, facts.CAPITAL_QUESTIONS),
        (asked.GREETINGS, PHRASES["hellos"]),
        (asked.GREETINGS, (f"{a} {b}" for a in PHRASES["openings"] for b in PHRASES["addressed"])),
        (asked.NEW_NAMES, PHRASES["names"]),
        (asked.NAME_GIVEN, PHRASES["name_told"]),
        (asked.NAME_ASKED, PHRASES["name_asked"]),
        (asked.SUM_QUESTIONS, (*PHRASES["sums"], *PHRASES["word_sums"])),
        (asked.WORD_SUM_QUESTIONS, (*PHRASES["sums"], *PHRASES["word_sums"])),
        (asked.NO_SUM_QUESTIONS, PHRASES["no_sums"]),
        (asked.JSON_REQUESTS, PHRASES["json_asked"]),
        (asked.TOOL_WEATHER, PHRASES["weather"]),
        (asked.TOOL_TIME, PHRASES["time"]),
        (asked.SYSTEM_NAMES, PHRASES["naming"]),
        (asked.SYSTEM_ASKED, PHRASES["who"]),
    ):
        assert _bare(held).isdisjoint(_bare(used))


def test_new_tools_return_members_that_training_does_not_name() -> None:
    everyday = {"result", "unit", "error", "code", "message", "reason", "success"}
    trained = {key for kind in ("texts", "numbers", "flags") for key in PHRASES[f"result_{kind}"]} | {*PHRASES["nouns"]}
    new = {name for name, *_ in asked.NEW_TOOLS}
    used = {key for name, text in asked.JSON_RESULTS if name in new for key in _keys(json.loads(text))}
    assert len(used) > 30
    assert used & trained <= everyday


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in _keys(inner)}
    return {key for inner in value for key in _keys(inner)} if isinstance(value, list) else set()


def test_every_notation_of_a_result_is_asked() -> None:
    told = [case.messages[-1]["content"] for case in cases() if case.skill == "tells a JSON result"]
    assert any(text.startswith("{\n") for text in told)
    assert any(text.startswith("{'") for text in told)
    assert any(text.startswith('{"') and '":"' in text for text in told)
    assert any(text.startswith("[") for text in told)


def test_held_out_sums_never_occur_in_training() -> None:
    rng = Random(1)
    for _ in range(3000):
        a, b = chat_skills._pair(rng)
        assert not chat_skills.held_out_sum(a, b)


def test_every_fact_is_asked() -> None:
    assert set(asked.FACT_QUESTIONS) == {fact.topic for fact in facts.FACTS}


def test_the_cases_are_the_same_each_time_and_come_with_and_without_thinking() -> None:
    made = cases()
    assert made == cases()
    assert [case.think for case in made[:4]] == [False, True, False, True]


def test_column_addition_is_right() -> None:
    for a in range(100):
        for b in range(100):
            said = chat_skills.sum_thinking(a, b)
            last = int(said.rstrip(".").split("= ")[-1])
            assert last * 10 + (a + b) % 10 == a + b


def _case(grader: str, expected: object, *, think: bool = False) -> Case:
    return Case("", ({"role": "user", "content": "?"},), grader, expected, (), think)


def test_graders_accept_the_right_and_refuse_the_wrong() -> None:
    assert right(_case("equals", "Yes."), Reply("Yes.\n"))
    assert not right(_case("equals", "Yes."), Reply("Yes. No."))
    assert right(_case("contains", ["Anna"]), Reply("Your name is Anna."))
    assert not right(_case("contains", ["Anna"]), Reply("Your name is Ana."))
    assert right(_case("last number", 31), Reply("12 + 19 = 31."))
    assert not right(_case("last number", 31), Reply("twelve"))
    assert right(_case("json", {"a": 1, "b": True}), Reply('{"a": 1, "b": true}'))
    assert not right(_case("json", {"a": 1, "b": True}), Reply('{"b": true, "a": 1}'))
    assert not right(_case("json", {"a": 1}), Reply('{"a": true}'))
    assert not right(_case("json", {"a": 1}), Reply("a: 1"))
    assert right(_case("call", ["f", {"x": 1}]), Reply("", calls=[("f", {"x": 1})]))
    assert not right(_case("call", ["f", {"x": 1}]), Reply("f", calls=[("f", {"x": 2})]))
    assert not right(_case("contains without calls", ["a"]), Reply("a", calls=[("f", {})]))


def test_a_result_is_told_whole_and_in_words() -> None:
    case = Case("", ({"role": "tool", "content": '{"temp": 17.5, "unit": "C"}'},), "tells", ["17.5", "C"])
    assert right(case, Reply("It is 17.5 C."))
    assert not right(case, Reply("It is 17 C."))  # cut
    assert not right(case, Reply("It is 217.5 C."))  # a longer number
    assert not right(case, Reply("It is 17.5 C at 3."))  # a number from nowhere
    assert not right(case, Reply('{"temp": 17.5, "unit": "C"}'))
    assert not right(case, Reply("It is 17.5 C.", calls=[("f", {})]))


def test_thinking_is_wanted_only_when_asked_for() -> None:
    assert thought_as_asked(_case("equals", "", think=True), Reply("x", "y"))
    assert not thought_as_asked(_case("equals", ""), Reply("x", "y"))
    assert not thought_as_asked(_case("equals", ""), Reply("<think>y</think>x"))


def test_a_clean_end_is_the_models_own() -> None:
    assert stopped(Reply("x"))
    assert not stopped(Reply("x", done_reason="length"))
    assert not stopped(Reply("x<|user|>"))
