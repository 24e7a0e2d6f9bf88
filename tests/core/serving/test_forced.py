"""Forms of calls that must come, held against texts by the engine's own grammars and by the parsers that read them."""

import json

import llguidance
import pytest

from puna.messages import Message, Think, Tool
from puna.prompt.builtin.call_forms import FORMS
from puna.prompt.builtin.registry import parser
from puna.serving import forced

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"type": "string", "enum": ["c", "f"]},
    },
    "required": ["city"],
}
TOOLS = [Tool(name="get", parameters=json.dumps(SCHEMA)), Tool(name="other")]
WEATHER = {"city": "a <b>", "days": 3}


@pytest.mark.parametrize(
    ("name", "text", "called"),
    [
        ("qwen3", '<tool_call>\n{"name": "get", "arguments": {"city": "a <b>", "days": 3}}\n</tool_call>', WEATHER),
        (
            "qwen3-coder",
            "<tool_call>\n<function=get>\n<parameter=city>\na <b>\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
            "</function>\n</tool_call>",
            WEATHER,
        ),
        (
            "glm-4.7",
            "<tool_call>get<arg_key>city</arg_key><arg_value>a <b></arg_value><arg_key>unit</arg_key>"
            "<arg_value>c</arg_value></tool_call>",
            {"city": "a <b>", "unit": "c"},
        ),
        ("laguna", "<tool_call>get<arg_key>city</arg_key><arg_value>x</arg_value></tool_call>", {"city": "x"}),
        ("cohere", '<|START_ACTION|>[{"tool_name": "get", "parameters": {"city": "x"}, "tool_call_id": "0"}]'
         "<|END_ACTION|>", {"city": "x"}),
        ("ministral", '[TOOL_CALLS]get[ARGS]{"city": "a <b>", "days": 3}', WEATHER),
    ],
)  # fmt: skip
def test_what_is_demanded_is_what_the_parser_reads(name: str, text: str, called: dict[str, object]) -> None:
    constraint = forced.by_form(TOOLS, FORMS[name])
    assert constraint is not None
    assert _fits(constraint.text, text)
    assert not _fits(constraint.text, text.replace("city", "town"))
    assert not _fits(constraint.text, "Hello")
    reader = parser(name)
    assert reader is not None
    reader.init(TOOLS, Message(role="user", content="x"), Think(False))
    (call,) = [*reader.add(text, False).calls, *reader.add("", True).calls]
    assert (call.name, json.loads(call.arguments)) == ("get", called)


def _fits(grammar: str, text: str) -> bool:
    tokenizer = llguidance.LLTokenizer("byte")
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_lark(grammar), log_level=0)
    assert not matcher.is_error() or matcher.get_error() == ""
    return bool(matcher.consume_tokens(tokenizer.tokenize_str(text))) and matcher.is_accepting()
