"""Conversations with the prompts that Ollama's builtin renderers made of them."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.core.prompt.builtin.format_text import named

from puna.messages import Message, Think, Tool, ToolCall
from puna.prompt.builtin.registry import renderer

HERE = Path(__file__).parent
CASES = [case for name in ("renderers", "families") for case in json.loads((HERE / f"{name}.json").read_text())]
# A model that can think does so unless told not to; the server says so to the renderer. These cannot.
CANNOT_THINK = {"qwen3-coder", "qwen3-vl-instruct", "olmo3", "olmo3.1", "glm-ocr", "lfm2", "functiongemma"}


def _message(given: Mapping[str, Any]) -> Message:
    return Message(
        role=given["role"].lower(),
        content=given["content"],
        thinking=given.get("thinking", ""),
        media=tuple(map(base64.b64decode, given.get("images", ()))),
        tool_calls=tuple(
            ToolCall(
                name=call["function"]["name"],
                arguments=json.dumps(call["function"]["arguments"]),
                id=call.get("id", ""),
            )
            for call in given.get("tool_calls", ())
        ),
        tool_name=given.get("tool_name", ""),
        tool_call_id=given.get("tool_call_id", ""),
    )


def _tool(given: Mapping[str, Any]) -> Tool:
    function = given["function"]
    return Tool(
        name=function["name"],
        description=function.get("description", ""),
        parameters=json.dumps(function["parameters"]),
        type=given["type"],
        items=json.dumps(given["items"]) if "items" in given else "",
    )


@pytest.mark.parametrize("case", CASES, ids=[f"{case['renderer']}-{i}" for i, case in enumerate(CASES)])
def test_a_conversation_renders_as_ollama_renders_it(case: dict[str, Any]) -> None:
    told = case.get("think", None if case["renderer"] in CANNOT_THINK else True)
    think = None if told is None else Think(bool(told), told if isinstance(told, str) else "")
    tools = [_tool(tool) for tool in case.get("tools", ())]
    text = renderer(case["renderer"]).render([_message(message) for message in case["messages"]], tools, think)
    text = re.sub(r"Current date: [0-9-]{10}\.", "Current date: 2026-11-21.", text)
    assert named(text) == case["text"]
    if "sha256" in case:
        assert hashlib.sha256(text.encode()).hexdigest() == case["sha256"]
