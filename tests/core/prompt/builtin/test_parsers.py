"""Answers in pieces, with what Ollama's builtin parsers made of each piece."""

import json
from pathlib import Path
from typing import Any

import pytest

from puna.errors import BackendFailedError
from puna.messages import Message, Think, Tool
from puna.prompt.builtin.registry import parser

HERE = Path(__file__).parent
CASES = [case for name in ("parsers", "answers") for case in json.loads((HERE / f"{name}.json").read_text())]
PROPERTIES = {
    "city": {"type": "string"},
    "days": {"type": "integer"},
    "x": {"type": "number"},
    "ok": {"type": "boolean"},
    "l": {"type": "array"},
    "o": {"type": "object"},
    "u": {"type": ["string", "integer"]},
    "v": {"type": ["boolean", "null"]},
    "w": {},
}
SCHEMA = json.dumps({"type": "object", "properties": PROPERTIES})
TOOLS = [Tool(name=name, description="d", parameters=SCHEMA) for name in ("get_weather", "get", "add.it")]


@pytest.mark.parametrize("case", CASES, ids=[f"{case['parser']}-{i}" for i, case in enumerate(CASES)])
def test_an_answer_is_parted_piece_by_piece_as_ollama_parts_it(case: dict[str, Any]) -> None:
    made = parser(case["parser"])
    assert made is not None
    think = None if case["think"] is None else Think(case["think"])
    made.init(TOOLS if case["tools"] else [], Message(role="user", content="x"), think)
    chunks: list[list[Any]] = []
    try:
        for text in [*case["pieces"], None]:
            piece = made.finish() if text is None else made.feed(text)
            if piece.content or piece.thinking or piece.calls:
                calls = [[call.name, json.loads(call.arguments), call.index] for call in piece.calls]
                chunks.append([piece.content, piece.thinking, calls])
    except BackendFailedError as error:
        chunks.append(["ERR", str(error)])
    assert chunks == case["chunks"]


def test_an_answer_that_the_prompt_began_is_content() -> None:
    for name in ("qwen3-vl-thinking", "qwen3.5", "harmony"):
        made = parser(name)
        assert made is not None
        made.init([], Message(role="assistant", content="Once"), None)
        assert made.feed(" upon").content == " upon"
