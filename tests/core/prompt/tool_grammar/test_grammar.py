"""Forms of calls that must come, held against texts by the engine's own grammars and by the parsers that read them."""

import json
import re
from collections.abc import Sequence

import llguidance
import pytest

from puna.messages import Message, Think, Tool
from puna.prompt.builtin.call_layouts import CALL_LAYOUTS
from puna.prompt.builtin.registry import parser
from puna.prompt.layout import CallSyntax, OutputLayout, TaggedCall
from puna.prompt.tool_grammar import grammar as tool_grammar

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"type": "string", "enum": ["c", "f"]},
        "where": {
            "type": "object",
            "properties": {"at": {"type": "array", "items": {"type": "number"}}, "free": {"type": "object"}},
        },
    },
    "required": ["city"],
}
TOOLS = [Tool(name="get", parameters=json.dumps(SCHEMA)), Tool(name="other")]
WEATHER = {"city": "a <b>", "days": 3}


MARKS = re.compile(r'%mark ("(?:[^"\\]|\\.)*")')
TEXTS = [
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
        ("harmony", '<|channel|>commentary to=functions.get <|constrain|>json<|message|>{"city": "a <b>", "days": 3}',
         WEATHER),
        ("deepseek3", "<\uff5ctool▁calls▁begin\uff5c><\uff5ctool▁call▁begin\uff5c>get<\uff5ctool▁sep\uff5c>"
         '{"city": "a <b>", "days": 3}<\uff5ctool▁call▁end\uff5c><\uff5ctool▁calls▁end\uff5c>', WEATHER),
        ("cogito", "<\uff5ctool▁calls▁begin\uff5c><\uff5ctool▁call▁begin\uff5c>function<\uff5ctool▁sep\uff5c>get\n"
         '```json\n{"city": "x"}\n```<\uff5ctool▁call▁end\uff5c><\uff5ctool▁calls▁end\uff5c>', {"city": "x"}),
        ("gemma4", '<|tool_call>call:get{city:<|"|>a <<b>\n"<|"|>,days:3,unit:<|"|>c<|"|>}<tool_call|>',
         {"city": 'a <<b>\n"', "days": 3, "unit": "c"}),
        ("gemma4", '<|tool_call>call:get{city:<|"|><|"|>,where:{at:[1.5,-2],free:{a:null,b:[<|"|>x<|"|>]}}}'
         "<tool_call|>",
         {"city": "", "where": {"at": [1.5, -2], "free": {"a": None, "b": ["x"]}}}),
        ("functiongemma", "<start_function_call>call:get{city:<escape>a <b>, }<escape>,days:3,where:{at:[1,2],"
         "free:{a:true}}}<end_function_call>",
         {"city": "a <b>, }", "days": 3, "where": {"at": [1, 2], "free": {"a": True}}}),
        ("lfm2", '<|tool_call_start|>[get(city="a <b>\n(",days=3)]<|tool_call_end|>', {"city": "a <b>\n(", "days": 3}),
        ("lfm2", '<|tool_call_start|>[get(city="x", unit="f", where={"at":[1.5],"free":{"a":[null,")"]}})]'
         "<|tool_call_end|>", {"city": "x", "unit": "f", "where": {"at": [1.5], "free": {"a": [None, ")"]}}}),
        ("olmo3", '<function_calls>get(city="a \\"b\\"\\n(", days=3)</function_calls>',
         {"city": 'a "b"\n(', "days": 3}),
        ("olmo3", '<function_calls>get(city="x", where={"at":[1,2],"free":{"a":["y"]}})</function_calls>',
         {"city": "x", "where": {"at": [1, 2], "free": {"a": ["y"]}}}),
        ("glimmer", ' to=get<|message|><atem:function_calls>\n<atem:invoke name="get">\n<atem:parameter name="city">'
         'a <b></atem:parameter>\n<atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n'
         "</atem:function_calls>", WEATHER),
]  # fmt: skip


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(("name", "text", "called"), TEXTS)
def test_what_is_demanded_is_what_the_parser_reads(
    name: str, text: str, called: dict[str, object], special: bool
) -> None:
    reader = parser(name)
    assert reader is not None
    constraint = tool_grammar.from_layout(TOOLS, CALL_LAYOUTS[name], reader.preserved_tokens)
    assert constraint is not None
    tokens = list(dict.fromkeys(MARKS.findall(constraint.text))) if special else []
    assert _fits(constraint.text, text, tokens)
    assert not _fits(constraint.text, text.replace("city", "town"), tokens)
    assert not _fits(constraint.text, "Hello", tokens)
    reader.init(TOOLS, Message(role="user", content="x"), Think(False))
    (call,) = [*reader.feed(text).calls, *reader.finish().calls]
    assert (call.name, json.loads(call.arguments)) == ("get", called)


def test_arguments_that_need_not_be_there() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": ["string", "null"]}}}
    constraint = tool_grammar.from_layout(
        [Tool(name="get", parameters=json.dumps(schema)), Tool(name="other")], CALL_LAYOUTS["lfm2"]
    )
    assert constraint is not None
    for arguments in ("", "a=1", "a=1, b=null", 'b="x"'):
        assert _fits(constraint.text, f"<|tool_call_start|>[get({arguments})]<|tool_call_end|>")
    assert _fits(constraint.text, "<|tool_call_start|>[other()]<|tool_call_end|>")
    assert not _fits(constraint.text, "<|tool_call_start|>[get(b=2)]<|tool_call_end|>")


def test_nothing_where_it_cannot_be_written() -> None:
    optional = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    schema = {"type": "object", "properties": {"a": optional, "b": {"type": ["integer", "null"]}}}
    constraint = tool_grammar.from_layout(
        [Tool(name="get", parameters=json.dumps(schema))], CALL_LAYOUTS["functiongemma"]
    )
    assert constraint is not None
    text = "<start_function_call>call:get{a:1,b:2}<end_function_call>"
    assert _fits(constraint.text, text)
    for nothing in ("null", "<nil>", "<escape>x<escape>"):
        assert not _fits(constraint.text, text.replace("1", nothing))
        assert not _fits(constraint.text, text.replace("2", nothing))


def test_names_that_cannot_be_written() -> None:
    schema = {"type": "object", "properties": {"a-b": {"type": "integer"}}}
    assert tool_grammar.from_layout([Tool(name="get", parameters=json.dumps(schema))], CALL_LAYOUTS["gemma4"]) is None


ITEM = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
LIST = {"type": "object", "properties": {"item": {"$ref": "#/$defs/Item"}}, "required": ["item"]}
TREE = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "next": {"$ref": "#"}},
    "additionalProperties": False,
}
JSON_LAYOUTS = ["qwen3", "ministral", "cohere"]
WRITTEN = {
    "qwen3": '<tool_call>\n{"name": "NAME", "arguments": ARGUMENTS}\n</tool_call>',
    "ministral": "[TOOL_CALLS]NAME[ARGS]ARGUMENTS",
    "cohere": '<|START_ACTION|>[{"tool_name": "NAME", "parameters": ARGUMENTS, "tool_call_id": "0"}]<|END_ACTION|>',
}


def _allowed(layout: str, schemas: dict[str, object], name: str, arguments: str) -> bool:
    tools = [Tool(name=name, parameters=json.dumps(schema)) for name, schema in schemas.items()]
    constraint = tool_grammar.from_layout(tools, CALL_LAYOUTS[layout])
    assert constraint is not None
    return _fits(constraint.text, WRITTEN[layout].replace("NAME", name).replace("ARGUMENTS", arguments))


@pytest.mark.parametrize("layout", JSON_LAYOUTS)
def test_definitions_of_one_name_are_each_tools_own(layout: str) -> None:
    schemas: dict[str, object] = {
        "count": LIST | {"$defs": {"Item": ITEM}},
        "name": LIST | {"$defs": {"Item": {"type": "string"}}},
    }
    assert _allowed(layout, schemas, "count", '{"item":{"n":1}}')
    assert _allowed(layout, schemas, "name", '{"item":"x"}')
    assert not _allowed(layout, schemas, "count", '{"item":"x"}')
    assert not _allowed(layout, schemas, "name", '{"item":{"n":1}}')


@pytest.mark.parametrize("layout", JSON_LAYOUTS)
def test_references_count_from_the_tools_own_root(layout: str) -> None:
    old = {
        "type": "object",
        "definitions": {"N": {"type": "integer"}},
        "properties": {"a": {"$ref": "#/definitions/N"}},
    }
    same = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}}
    schemas: dict[str, object] = {"tree": TREE, "old": old, "same": same}
    assert _allowed(layout, schemas, "tree", '{"v":1,"next":{"v":2,"next":{}}}')
    assert not _allowed(layout, schemas, "tree", '{"v":1,"next":{"name":"tree"}}')
    assert _allowed(layout, schemas, "old", '{"a":1}')
    assert not _allowed(layout, schemas, "old", '{"a":"x"}')
    assert _allowed(layout, schemas, "same", '{"a":1,"b":2}')
    assert not _allowed(layout, schemas, "same", '{"a":1,"b":"x"}')


def test_references_in_marked_arguments_count_from_the_tools_own_root() -> None:
    text = "<tool_call>\n<function=f>\n<parameter=next>\nVALUE\n</parameter>\n</function>\n</tool_call>"
    constraint = tool_grammar.from_layout([Tool(name="f", parameters=json.dumps(TREE))], CALL_LAYOUTS["qwen3-coder"])
    assert constraint is not None
    assert _fits(constraint.text, text.replace("VALUE", '{"v":1,"next":{"v":2}}'))
    assert not _fits(constraint.text, text.replace("VALUE", '{"v":"x"}'))


def test_references_in_literals_are_followed() -> None:
    constraint = tool_grammar.from_layout([Tool(name="f", parameters=json.dumps(TREE))], CALL_LAYOUTS["lfm2"])
    assert constraint is not None
    assert _fits(constraint.text, '<|tool_call_start|>[f(v=1, next={"v":2})]<|tool_call_end|>')
    assert not _fits(constraint.text, "<|tool_call_start|>[f(v=1, next=2)]<|tool_call_end|>")


@pytest.mark.parametrize("layout", JSON_LAYOUTS)
@pytest.mark.parametrize("schema", [{}, {"properties": {"a": {"type": "integer"}}}, True, {"type": ["object", "null"]}])
def test_arguments_are_an_object(layout: str, schema: object) -> None:
    assert _allowed(layout, {"f": schema}, "f", '{"a":1}')
    for other in ("42.0", "[]", "null", '"x"'):
        assert not _allowed(layout, {"f": schema}, "f", other)


def test_white_space_comes_to_an_end() -> None:
    constraint = tool_grammar.behind_tag([Tool(name="f", parameters="{}")], "{")
    for space in ("", " ", "\n  ", "\n\n" + " " * 20):
        assert _fits(constraint.text, f'{{{space}"name":{space}"f",{space}"arguments": {{}}{space}}}')
    assert not _fits(constraint.text, f'{{{" " * 30}"name": "f", "arguments": {{}}}}')
    text = "<tool_call>get<arg_key>city</arg_key><arg_value>aTHENb</arg_value></tool_call>"
    marked = tool_grammar.from_layout(TOOLS, CALL_LAYOUTS["glm-4.7"])
    assert marked is not None
    assert _fits(marked.text, text.replace("THEN", "\n" * 200))
    assert not _fits(marked.text, text.replace("THEN", "\n" * 300))


@pytest.mark.parametrize(
    ("tagged", "text"),
    [
        (TaggedCall(before_id="[CALL_ID]", after_id="[ARGS]"), 'get[CALL_ID]a1B2c3D4e[ARGS]{"city": "x"}'),
        (
            TaggedCall(
                before_name="functions.", before_id=":", after_id="<|args|>", id_template="functions.{name}:{id}"
            ),
            'functions.get:0<|args|>{"city": "x"}',
        ),
        (
            TaggedCall(id_first=True, after_id="<|name|>", after_name="<|args|>"),
            'a1B2c3D4e<|name|>get<|args|>{"city": "x"}',
        ),
    ],
)
def test_layouts_with_an_id_beside_the_name_are_bound(tagged: TaggedCall, text: str) -> None:
    layout = OutputLayout(
        name="x", call_syntax=CallSyntax.TAGGED_JSON, call_start="<call>", call_end="</call>", tagged=tagged
    )
    constraint = tool_grammar.from_layout(TOOLS, layout)
    assert constraint is not None
    assert _fits(constraint.text, f"<call>{text}</call>")
    assert not _fits(constraint.text, f"<call>{text.replace('city', 'town')}</call>")


def test_many_optional_arguments_take_no_longer_text_than_their_number() -> None:
    schema = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(400)}}
    constraint = tool_grammar.from_layout([Tool(name="get", parameters=json.dumps(schema))], CALL_LAYOUTS["lfm2"])
    assert constraint is not None
    assert len(constraint.text) < 400 * 400
    assert _fits(constraint.text, "<|tool_call_start|>[get(p3=1, p7=2, p399=3)]<|tool_call_end|>")
    assert not _fits(constraint.text, "<|tool_call_start|>[get(p7=1, p3=2)]<|tool_call_end|>")


def _fits(grammar: str, text: str, special: Sequence[str] = ()) -> bool:
    """`special`: which texts stand for tokens of their own; the byte tokenizer has some to lend."""
    ids = {json.loads(mark): 256 + i for i, mark in enumerate(special)}
    grammar = MARKS.sub(lambda match: f"<[{ids[json.loads(match[1])]}]>" if special else match[1], grammar)
    tokenizer = llguidance.LLTokenizer("byte")
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_lark(grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    pieces = re.split(f"({'|'.join(map(re.escape, ids))})", text) if ids else [text]
    tokens = [token for piece in pieces for token in ([ids[piece]] if piece in ids else piece.encode())]
    return bool(matcher.consume_tokens(tokens)) and matcher.is_accepting()
