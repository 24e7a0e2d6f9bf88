"""Templates and conversations with what Ollama made of them, recorded by tools/compare_templates.py."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from puna.errors import TemplateError
from puna.go.template.parser import parse
from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.go_template.render import render_go

CASES = json.loads((Path(__file__).parent / "rendered.json").read_text())


def _message(given: Mapping[str, Any]) -> Message:
    return Message(
        role=given["role"],
        content=given["content"],
        thinking=given.get("thinking", ""),
        media=tuple(map(base64.b64decode, given.get("images", ()))),
        tool_calls=tuple(map(_call, given.get("tool_calls", ()))),
        tool_name=given.get("tool_name", ""),
        tool_call_id=given.get("tool_call_id", ""),
    )


def _call(given: Mapping[str, Any]) -> ToolCall:
    function = given["function"]
    arguments = json.dumps(function["arguments"]) if "arguments" in function else ""
    return ToolCall(id=given["id"], name=function["name"], arguments=arguments)


def _tool(given: Mapping[str, Any]) -> Tool:
    function = given["function"]
    parameters = json.dumps(function["parameters"]) if "parameters" in function else ""
    return Tool(name=function["name"], description=function.get("description", ""), parameters=parameters)


def _think(given: bool | str | None) -> Think | None:
    return None if given is None else Think(bool(given), given if isinstance(given, str) else "")


def _rendered(template: str, messages: Sequence[Any], tools: Sequence[Any], think: bool | str | None) -> dict[str, str]:
    try:
        parsed = parse(template)
    except TemplateError as error:
        return {"error": f"template error: {error}"}
    try:
        text = render_go(parsed, list(map(_message, messages)), list(map(_tool, tools)), _think(think))
    except TemplateError as error:
        return {"error": str(error)}
    return {"text": text}


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_a_conversation_renders_as_ollama_renders_it(case: dict[str, Any]) -> None:
    made = _rendered(case["template"], case.get("messages", ()), case.get("tools", ()), case.get("think"))
    assert made == {key: case[key] for key in ("text", "error") if key in case}


def test_the_record_holds_texts_and_errors_of_both_kinds() -> None:
    assert len(CASES) >= 150
    assert sum("text" in case for case in CASES) > 60
    assert sum("messages" not in case for case in CASES) > 5
