import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.go.template.facts import LONGEST_TAG, Facts
from puna.messages import Message, Think, Tool, ToolCall
from puna.sandbox import wire
from puna.sandbox.wire import HEADER, InvalidAnswerError, pack, unpack

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_message_is_read_as_it_was_written(value):
    data = pack(value)
    assert HEADER.unpack(data[: HEADER.size]) == (len(data) - HEADER.size,)
    assert unpack(data[HEADER.size :]) == value


def test_lone_surrogates_are_preserved():
    assert unpack(pack("a\ud800")[HEADER.size :]) == "a\ud800"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_invalid(data):
    with pytest.raises(InvalidAnswerError):
        unpack(data)


def test_a_conversation_arrives_without_its_media():
    call = ToolCall(name="f", arguments='{"a":1}', index=2, id="c")
    sent = [Message(role="assistant", content="c", thinking="t", media=(b"image",), tool_calls=(call,), tool_name="n")]
    (got,) = wire.messages_in(unpack(pack(wire.messages_out(sent))[HEADER.size :]))
    assert got.media == (b"",)
    assert (got.content, got.thinking, got.tool_calls, got.tool_name) == ("c", "t", (call,), "n")


def test_tools_and_thinking_arrive_as_they_are():
    tools = [Tool(name="f", description="d", parameters="{}", items="[]")]
    assert wire.tools_in(wire.tools_out(tools)) == tools
    for think in (None, Think(on=False), Think(on=True, level="high")):
        assert wire.think_in(wire.think_out(think)) == think


def test_facts_arrive_as_they_are():
    facts = Facts(frozenset({"tools", "system"}), ("<a>", "</a>"), "<call>", True)
    assert wire.facts_in(unpack(pack(wire.facts_out(facts))[HEADER.size :])) == facts


@pytest.mark.parametrize(
    "value",
    [
        None,
        "facts",
        [],
        [["a"], None, "", 1],
        [[1], None, "", True],
        [["a"], ["<a>"], "", True],
        [["a" * (LONGEST_TAG + 1)], None, "", True],
        [["a"], None, "x" * (LONGEST_TAG + 1), True],
    ],
)
def test_facts_of_another_shape_are_invalid(value):
    with pytest.raises(InvalidAnswerError):
        wire.facts_in(value)


@pytest.mark.parametrize("value", [None, 3, ["a"], "abc"])
def test_a_text_has_its_type_and_length_checked(value):
    with pytest.raises(InvalidAnswerError):
        wire.text(value, 2)
    assert wire.text("ab", 2) == "ab"
