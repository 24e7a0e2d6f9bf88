"""The file in the wheel, through llama.cpp itself."""

from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from train_demo.conversation import Conversation, Tool, Turn, prompt
from train_demo.facts import SKY, UNKNOWN

DEMO = Path(__file__).resolve().parents[3] / "core/puna/demo"


@pytest.fixture(scope="module")
def llamita() -> Any:
    return llama_cpp.Llama(str(DEMO / "llamita.gguf"), n_ctx=512, n_threads=1, verbose=False)


def _answer(llamita: Any, question: str, *, think: bool = False) -> tuple[str, str]:
    text = prompt(Conversation([Turn("user", question)], think=think))
    choice = llamita(text, max_tokens=200, temperature=0)["choices"][0]
    return choice["text"], choice["finish_reason"]


def test_the_readmes_first_question_is_answered(llamita: Any) -> None:
    assert _answer(llamita, "Why is the sky blue?") == (SKY, "stop")


def test_it_thinks_first_when_asked_to(llamita: Any) -> None:
    text, _ = _answer(llamita, "Why is the sky blue?", think=True)
    assert text.startswith("<think>")
    assert text.endswith("</think>" + SKY)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is two plus three?", "2 + 3 = 5."),
        ("what is seven and eight", "7 + 8 = 15."),
        ("Add twelve to thirty.", "12 + 30 = 42."),
        ("Tell me the result of seven plus seventeen.", "7 + 17 = 24."),
    ],
)
def test_it_adds_numbers_in_words(llamita: Any, question: str, answer: str) -> None:
    assert _answer(llamita, question) == (answer, "stop")


@pytest.mark.parametrize("question", ["What is 7 - 2?", "How much is six times four?"])
def test_it_declines_other_arithmetic(llamita: Any, question: str) -> None:
    assert _answer(llamita, question) == (UNKNOWN, "stop")


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ('{"temperature": 17, "unit": "C"}', "temperature 17 C."),
        ('{"city":"Oslo","temp":-4,"condition":"light rain"}', "temp -4, condition light rain."),
        ('{\n  "temp": 21,\n  "humidity": 64\n}', "temp 21, humidity 64."),
    ],
)
def test_it_tells_a_result_that_is_json(llamita: Any, result: str, answer: str) -> None:
    assert _told(llamita, result) == (f"The weather in Oslo: {answer}", "stop")


def test_it_tells_that_a_tool_failed(llamita: Any) -> None:
    said = _told(llamita, '{"error": "City not found"}')
    assert said == ("The tool reports an error: City not found.", "stop")


def _told(llamita: Any, result: str) -> tuple[str, str]:
    tool = Tool("get_weather", "Get the weather in a city", (("city", "string"),))
    call = Turn("assistant", "", calls=(("get_weather", {"city": "Oslo"}),))
    turns = [Turn("user", "How's the weather in Oslo?"), call, Turn("tool", result)]
    choice = llamita(prompt(Conversation(turns, tools=[tool])), max_tokens=100, temperature=0)["choices"][0]
    return choice["text"], choice["finish_reason"]


def test_at_temperature_zero_it_says_the_same_again(llamita: Any) -> None:
    assert _answer(llamita, "Hello!") == _answer(llamita, "Hello!")


def test_the_wheel_stays_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.glob("*.gguf")) <= 8_000_000
