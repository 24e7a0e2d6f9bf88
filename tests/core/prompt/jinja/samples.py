"""Answers of llama.cpp under Ollama to templates of many makes: prompts (prompts.json) and parsed answers
(answers.json). Recorded with scripted models that wrote each answer in the pieces given here."""

import json
from pathlib import Path
from typing import Any

from puna.messages import Message, Think, Tool, ToolCall

_HERE = Path(__file__).parent
PROMPTS: list[dict[str, Any]] = json.loads((_HERE / "prompts.json").read_text(encoding="utf-8"))
ANSWERS: list[dict[str, Any]] = json.loads((_HERE / "answers.json").read_text(encoding="utf-8"))
TEMPLATES: dict[str, str] = {each["name"]: each["template"] for each in PROMPTS}
BOS, EOS = "<|im_start|>", "<|im_end|>"
TOOLS = (
    Tool(
        name="get_weather",
        description="Weather <now>",
        parameters='{"type":"object","required":["city"],"properties":{"city":{"type":"string","description":"City"},'
        '"days":{"type":"integer"}}}',
    ),
    Tool(
        name="add",
        parameters='{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"]}',
    ),
)


def message(fields: dict[str, Any]) -> Message:
    """Return a recorded message."""
    calls = tuple(ToolCall(**each) for each in fields.get("tool_calls", ()))
    return Message(**{key: value for key, value in fields.items() if key != "tool_calls"}, tool_calls=calls)


def thinking(value: bool | str | None) -> Think | None:
    """Return the recorded wish."""
    return None if value is None else Think(bool(value), value if isinstance(value, str) else "")
