import pytest

from puna.messages import Message
from puna.prompt.builtin.gemma4 import variant
from puna.prompt.builtin.registry import renderer


@pytest.mark.parametrize(
    ("model", "parameters", "large"),
    [
        ("gx", 1, False),
        ("gx", 12_000_000_000, True),
        ("gemma4-e4b", 1, False),
        ("gemma4:31b", 1, True),
        ("gemma4:26b-a4b", 1, True),
        ("my-12b", 1, True),
    ],
)
def test_gemma4_is_small_or_large_by_name_then_by_size(model: str, parameters: int, large: bool) -> None:
    assert variant(model, lambda: parameters) == ("gemma4-large" if large else "gemma4-small")


def test_places_of_media_hold_when_white_space_around_the_text_is_cut() -> None:
    made = renderer("gemma4-large")
    message = Message(role="user", content="  one two ", media=(b"1",), media_at=(6,))
    assert "one [img-0]two<turn|>" in made.render([message], [], None)
