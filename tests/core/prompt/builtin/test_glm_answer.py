import pytest
from tests.core.prompt.builtin.reading import TOOLS

from puna.errors import BackendFailedError
from puna.prompt.builtin.glm_answer import read_call, read_unclosed_call

CITY = "<arg_key>city</arg_key><arg_value>Oslo</arg_value>"
DAYS = "<arg_key>days</arg_key><arg_value>2</arg_value>"


@pytest.mark.parametrize(
    "raw",
    [
        f"get{CITY}{DAYS}",
        f"get\n{CITY}\n{DAYS}\n",
        f"get{CITY}<arg_key>days</arg_key>2</arg_value>",
        "get <arg_key>city</arg_key><arg_value>Oslo<arg_key>days</arg_key><arg_value>2",
    ],
)
def test_missing_tags_are_put_in(raw: str) -> None:
    assert read_call(raw, TOOLS) == ("get", {"city": "Oslo", "days": 2})


def test_without_a_first_tag_the_first_word_is_the_name() -> None:
    assert read_call("get city</arg_key><arg_value>Oslo</arg_value>", TOOLS) == ("get", {"city": "Oslo"})


def test_a_call_that_was_not_closed_is_not_mended() -> None:
    assert read_unclosed_call(f"get{CITY}", TOOLS) == ("get", {"city": "Oslo"})
    with pytest.raises(BackendFailedError, match="XML syntax error"):
        read_unclosed_call("get<arg_key>city", TOOLS)


def test_a_call_needs_a_name() -> None:
    with pytest.raises(BackendFailedError, match="empty function name"):
        read_call(CITY, TOOLS)
