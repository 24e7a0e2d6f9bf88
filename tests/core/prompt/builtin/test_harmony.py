import pytest

from puna.errors import BackendFailedError
from puna.messages import Message, Tool
from puna.prompt.builtin.harmony import HarmonyParser, Header, ToolNames, read_header


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("assistant<|channel|>final", Header("assistant", "final", "")),
        ("assistant", Header("assistant", "", "")),
        ("assistant<|channel|>commentary to=functions.f json", Header("assistant", "commentary", "functions.f")),
        ("assistant to=f<|channel|>commentary<|constrain|>json", Header("assistant", "commentary", "f")),
    ],
)  # fmt: skip
def test_a_header_says_who_writes_where_and_for_whom(text: str, header: Header) -> None:
    assert read_header(text) == header


def test_names_of_tools_become_identifiers_and_come_back() -> None:
    names = ToolNames()
    given = ["add.it", "add it", "2nd", "browser.search", "é!", "…"]
    shown = [names.add(name) for name in given]
    assert shown == ["add_it", "add_it_2", "_2nd", "browser.search", "é", "unnamed"]
    assert [names.original(name) for name in shown] == given


def test_the_call_comes_with_the_end_under_the_client_s_name() -> None:
    parser = HarmonyParser()
    (tool,) = parser.init([Tool(name="add.it")], Message(role="user", content="x"), None)
    assert tool.name == "add_it"
    assert parser.feed('<|channel|>commentary to=functions.add_it<|message|>{"a"').calls == ()
    assert parser.feed(": 1}<|call|>".removesuffix("<|call|>")).calls == ()
    (call,) = parser.finish().calls
    assert (call.name, call.arguments) == ("add.it", '{"a":1}')


def test_arguments_that_are_no_json_are_an_error() -> None:
    parser = HarmonyParser()
    parser.init([], None, None)
    parser.feed("<|channel|>commentary to=functions.f<|message|>{")
    with pytest.raises(BackendFailedError, match=r"error parsing tool call: raw='{'"):
        parser.finish()
