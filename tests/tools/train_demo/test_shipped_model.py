"""The file in the wheel, through llama.cpp itself."""

from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from train_demo.conversation import Conversation, Turn, prompt
from train_demo.facts import SKY

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


def test_at_temperature_zero_it_says_the_same_again(llamita: Any) -> None:
    assert _answer(llamita, "Hello!") == _answer(llamita, "Hello!")


def test_the_wheel_stays_small() -> None:
    assert (DEMO / "llamita.gguf").stat().st_size <= 8_000_000
