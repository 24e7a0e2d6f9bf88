import pytest

from puna.go.template.parser import parse
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.go_template.render import render_go

TOOL = Tool(
    name="get",
    parameters='{"type": "object", "properties": {"n": {"type": ["integer", "null"], "description": "<n>"}, "a": {}}}',
)
CALL = ToolCall(name="get", arguments='{"b": 1, "a": [2.5]}', id="c1")


def render(text: str, think: Think | None = None) -> str:
    messages = [Message(role="user", content="hi", media=(b"x",)), Message(role="assistant", tool_calls=(CALL,))]
    return render_go(parse("{{ with .Messages }}{{ end }}" + text), messages, [TOOL], think)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("{{ (index .Tools 0).Function.Name }}", "get"),
        (
            "{{ (index .Tools 0) }}",
            '{"type":"function","function":{"name":"get","description":"","parameters":{"type":"object","properties":'
            '{"a":{},"n":{"type":["integer","null"],"description":"\\u003cn\\u003e"}}}}}',
        ),
        ("{{ range (index .Messages 1).ToolCalls }}{{ .Function.Arguments }}{{ end }}", '{"a":[2.5],"b":1}'),
        ("{{ len (index .Messages 0).Images }}", "1"),
        ("{{ (index .Tools 0).Function.Parameters.Properties.n.ToTypeScriptType }}", "number | null"),
        ("{{ (index .Tools 0).Function.Parameters.Properties.a.ToTypeScriptType }}", "any"),
    ],
)
def test_a_template_sees_ollama_s_go_types(text: str, written: str) -> None:
    assert render(text) == written


@pytest.mark.parametrize(
    ("think", "written"),
    [
        (None, "false  false"),
        (Think(True), "true medium true"),
        (Think(True, "high"), "true high true"),
        (Think(False), "false  true"),
    ],
)
def test_a_template_is_told_whether_and_how_hard_to_think(think: Think | None, written: str) -> None:
    assert render("{{ .Think }} {{ .ThinkLevel }} {{ .IsThinkSet }}", think) == written
