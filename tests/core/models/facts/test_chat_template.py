import pytest

from puna.models.facts import chat_template

ROLE = "{% if message['role'] == 'tool' %}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("{% if tools %}", ("tools",)),
        ("tool_call", ("tools",)),
        ("<think></think>", ("thinking",)),
        ("<think>", ()),
        ("content.split('</think>')", ("thinking",)),
        ('content.split("</think>")', ("thinking",)),
        ('content.split("</think>") reasoning_content', ()),
        ("content.split('</think>') <SPECIAL_12>", ()),
        ("tools <think></think>", ("tools", "thinking")),
    ],
)
def test_words_tell_what_a_template_can(text, found):
    assert chat_template.capabilities(text) == found


@pytest.mark.parametrize(
    "result", ["tool_response", "tool_results", "ipython", ROLE, "m[\"role\"] == 'tool'", "message.role == 'tool'"]
)
@pytest.mark.parametrize("calls", ["tool_calls", "assistant_tool_call"])
def test_a_round_trip_has_calls_and_results(calls, result):
    assert chat_template.has_tool_round_trip(f"{calls} {result}")
    assert not chat_template.has_tool_round_trip(calls)
    assert not chat_template.has_tool_round_trip(result)
