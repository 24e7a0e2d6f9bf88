import pytest

from puna.go.template import facts
from puna.go.template.parser import parse


def loop(body: str) -> str:
    return "{{ range .Messages }}" + body + "{{ end }}"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{{ .Tools }}{{ .A.Bc }}", {"tools", "a", "bc", "response"}),
        ("{{ range $i, $m := $.Messages }}{{ $m.Role }}{{ end }}", {"$", "messages", "$m", "role"}),
        ("{{ (index .Tools 0).Name }}", {"response"}),
        ('{{ define "x" }}{{ .Suffix }}{{ end }}{{ template "x" .Messages }}', {"suffix", "messages"}),
        ("{{ $Tools := 1 }}", {"response"}),
    ],
)
def test_identifiers_are_the_names_of_fields_and_variables(text: str, names: set[str]) -> None:
    assert facts.identifiers(parse(text)) == names


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (loop("{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"), ("<think>", "</think>")),
        (loop("a{{ .Thinking }}"), None),
        (loop("{{ if .X }}a{{ .Thinking }}{{ end }}{{ if .X }}{{ .Thinking }}b{{ end }}"), ("a", "b")),
        (loop("a{{ .Thinking }} b") + loop(" {{ .Thinking }}b"), None),
        ("{{ range $.Messages }}a{{ .Thinking }}b{{ end }}", None),
        ("{{ range .X.Messages }}a{{ .Thinking }}b{{ end }}", None),
        ("{{ range slice .Messages 1 }}a{{ .Thinking }}b{{ end }}", ("a", "b")),
        (loop("a{{ .Thinking }}b") + "{{ range .Tools }}c{{ .Thinking }}d{{ end }}", ("a", "b")),
    ],
)
def test_thinking_tags_stand_around_the_thinking_of_messages(text: str, tags: tuple[str, str] | None) -> None:
    assert facts.thinking_tags(parse(text)) == tags


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("{{ .Prompt }}", "{"),
        (loop("{{ if .ToolCalls }}<tool_call>\n{{ range .ToolCalls }}{{ . }}{{ end }}{{ end }}"), "<tool_call>"),
        (loop('{{ if .ToolCalls }}{{ range .ToolCalls }}{"name": 1}{{ end }}{{ end }}'), "{"),
        (loop('{{ if .Content }}x{{ else if .ToolCalls }} [TOOL_CALLS][{"name"{{ end }}'), "[TOOL_CALLS]["),
        (loop("{{ if .ToolCalls }}{{ .X }}late{{ end }}"), "{"),
        (loop("{{ with .X }}{{ if and .A .ToolCalls }}functools[{{ end }}{{ end }}"), "functools["),
    ],
)
def test_the_tool_tag_is_the_text_before_the_calls(text: str, tag: str) -> None:
    assert facts.tool_tag(parse(text)) == tag


def test_a_full_round_trip_needs_tools_calls_and_results() -> None:
    calls = loop("{{ .ToolCalls }}{{ $.Tools }}")
    assert not facts.full_tool_round_trip(parse(calls))
    assert facts.full_tool_round_trip(parse(calls + "<tool_response>"))
    assert not facts.full_tool_round_trip(parse(loop("{{ .ToolCalls }}") + "<tool_response>"))
