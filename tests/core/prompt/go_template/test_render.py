import pytest

from puna.errors import TemplateError
from puna.go.template.parser import parse
from puna.messages import Message, Think, Tool
from puna.prompt.go_template.render import collate, render_go, render_suffix

WEATHER = Tool(
    name="get_weather",
    description="W",
    parameters='{"type":"object","required":["city"],"properties":{"z":{"type":["string","null"],"title":"lost"},"city":{}}}',
)


def user(content: str) -> Message:
    return Message(role="user", content=content)


def test_a_template_without_messages_is_run_turn_by_turn_and_ends_where_the_answer_begins() -> None:
    template = parse("[{{ .System }}|{{ .Prompt }}|{{ .Response }}|x]Y")
    turns = [Message(role="system", content="S"), user("U"), Message(role="assistant", content="A"), user("V")]
    assert render_go(template, turns[:2], [], None) == "[S|U|"
    assert render_go(template, turns, [], None) == "[S|U|A|x]Y[|V|"


def test_an_answer_at_the_end_is_a_prefill() -> None:
    template = parse("{{ .Prompt }} -> {{ .Response }}\n")
    assert render_go(template, [user("U"), Message(role="assistant", content="A")], [], None) == "U -> A"


def test_the_last_turn_knows_none_of_ollama_s_own_functions() -> None:
    with pytest.raises(TemplateError, match='at <json>: "json" is not a defined function'):
        render_go(parse("{{ json .Prompt }}{{ .Response }}"), [user("U")], [], None)


def test_a_response_in_an_if_with_an_else_is_an_error_and_no_crash() -> None:
    with pytest.raises(TemplateError):
        render_go(parse("{{ if .Prompt }}{{ .Response }}{{ else }}x{{ end }}"), [user("U")], [], None)


def test_a_template_that_uses_neither_messages_nor_response_gets_a_response() -> None:
    template = parse("{{ .Prompt }}!")
    assert render_go(template, [user("U"), Message(role="assistant", content="A")], [], None) == "U!A"
    assert template.text == "{{ .Prompt }}!"


def test_struct_and_json_forms_of_a_tool() -> None:
    template = parse("{{ range .Tools }}{{ .Function }}{{ . }}{{ end }}{{ .Messages }}")
    properties = '{"city":{},"z":{"type":["string","null"]}}'
    schema = f'{{"type":"object","required":["city"],"properties":{properties}}}'
    assert render_go(template, [], [WEATHER], None) == (
        f"{{get_weather W {{object <nil> <nil> [city] {properties}}}}}"
        f'{{"type":"function","function":{{"name":"get_weather","description":"W","parameters":{schema}}}}}[]'
    )


@pytest.mark.parametrize(
    ("think", "told"),
    [
        (None, "false  false"),
        (Think(on=False), "false  true"),
        (Think(on=True), "true medium true"),
        (Think(on=True, level="low"), "true low true"),
    ],
)
def test_what_a_template_is_told_of_thinking(think: Think | None, told: str) -> None:
    template = parse("{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}{{ range .Messages }}{{ end }}")
    assert render_go(template, [user("U")], [], think) == told


def test_neighbours_of_one_role_are_joined_but_not_tool_results() -> None:
    result = Message(role="tool", content="r")
    system, collated = collate([Message(role="system", content="S"), user("a"), user("b"), result, result])
    assert system == "S"
    assert [m.content for m in collated] == ["S", "a\n\nb", "r", "r"]


def test_a_gap_is_filled_from_prompt_and_suffix_alone() -> None:
    template = parse("<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ .System }}{{ .Response }}")
    assert render_suffix(template, "a", "b", None) == "<PRE>a<SUF>b<MID><no value>"
