"""Answers in pieces, with what Ollama's builtin parsers made of each piece."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from puna.capabilities import PARSERS
from puna.errors import BackendFailedError
from puna.messages import Message, Think, Tool
from puna.prompt.builtin.harmony import Header, ToolNames, read_header
from puna.prompt.builtin.notation import json_text
from puna.prompt.builtin.qwen3_coder_answer import typed
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


def test_there_is_a_parser_for_every_name_of_which_capabilities_are_told() -> None:
    assert {name for name in PARSERS if parser(name) is None} == set()


def test_an_unknown_name_means_no_parser() -> None:
    assert parser("nope") is None


def test_an_answer_that_the_prompt_began_is_content() -> None:
    for name in ("qwen3-vl-thinking", "qwen3.5", "harmony"):
        made = parser(name)
        assert made is not None
        made.init([], Message(role="assistant", content="Once"), None)
        assert made.feed(" upon").content == " upon"


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


@pytest.mark.parametrize(
    ("raw", "types", "value"),
    [
        ("\n1\n", ["integer"], 1),
        ("x", ["integer"], "x"),
        ("2.0", ["number"], 2),
        ("maybe", ["boolean"], False),
        ("TRUE", ["boolean", "string"], True),
        ("NULL", ["string"], None),
        ("[1]", ["array"], [1]),
        ("{", ["object"], "{"),
        ("1", [], "1"),
    ],
)
def test_values_take_the_type_that_the_schema_says(raw: str, types: list[str], value: object) -> None:
    assert typed(raw, types) == value


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{bad", "invalid character 'b' looking for beginning of object key string"),
        ("{}<", "invalid character '<' after top-level value"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 2}', "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ('{"a":', "unexpected end of JSON input"),
        ('"a\nb"', "invalid character '\\n' in string literal"),
        ('"\\q"', "invalid character 'q' in string escape code"),
        ('"\\u12x"', "invalid character 'x' in \\u hexadecimal character escape"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ("NaN", "invalid character 'N' looking for beginning of value"),
    ],
)
def test_what_is_no_json_is_refused_in_gos_words(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        json_text.read(text)
