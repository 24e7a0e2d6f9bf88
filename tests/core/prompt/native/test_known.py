import json

import pytest
from tests.core.prompt.native.samples import TOOLS
from tests.core.prompt.native.test_parser import joined, parse

from puna.messages import Message, Tool
from puna.prompt.jinja import ChatTemplate

USER = Message(role="user", content="hi")
BODY = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
BAR, DASH = "\uff5c", "\u2581"
DSML = f"{BAR}DSML{BAR}"

ONE = {
    # what marks the template, what the model says, its content, its thinking, its calls
    "ministral": (
        "{# [SYSTEM_PROMPT] [TOOL_CALLS] [ARGS] #}",
        '[THINK]Hm.[/THINK]Look: [TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}',
        "Look: ",
        "Hm.",
        [("add", {"a": 1}), ("get_weather", {"city": "Rome"})],
    ),
    "functionary": (
        "{# >>>all >>>${recipient} #}",
        'all\nI look.>>>add\n{"a": 1}>>>add\n{"a": 2}',
        "I look.",
        "",
        [("add", {"a": 1}), ("add", {"a": 2})],
    ),
    "functionary, a call at once": (
        "{# >>>all >>>${recipient} #}",
        'add\n{"a": 1}',
        "",
        "",
        [("add", {"a": 1})],
    ),
    "kimi, thoughts that end with a call": (
        "{# <|tool_calls_section_begin|> <|tool_call_begin|> #}",
        "<think>Hm.<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
        '{"a": 1}<|tool_call_end|><|tool_calls_section_end|>',
        "",
        "Hm.",
        [("add", {"a": 1})],
    ),
    "lfm": (
        "{# <|tool_list_start|> <|tool_list_end|> #}",
        '<|tool_call_start|>[add(a=1, b=-2.5), get_weather(city="Rome\nItaly", days=[1, true, None])]<|tool_call_end|>',
        "",
        "",
        [("add", {"a": 1, "b": -2.5}), ("get_weather", {"city": "Rome\nItaly", "days": [1, True, None]})],
    ),
    "deepseek's markup": (
        "{# dsml_token DSML function_calls #}",
        f'<think>Hm.</think>Look.\n\n<{DSML}function_calls>\n<{DSML}invoke name="get_weather">\n'
        f'<{DSML}parameter name="city" string="true">Rome</{DSML}parameter>\n'
        f'<{DSML}parameter name="days" string="false">2</{DSML}parameter>\n</{DSML}invoke>\n</{DSML}function_calls>',
        "Look.",
        "Hm.",
        [("get_weather", {"city": "Rome", "days": 2})],
    ),
    "qwen3-coder without its marker": (
        "{# <tool_call> <function= <parameter= #}",
        "Look.\n<function=get_weather>\n<parameter=city>\n  Rome\n\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
        "</function>\n</tool_call>",
        "Look.\n",
        "",
        [("get_weather", {"city": "  Rome\n", "days": 2})],
    ),
    "qwen3.5": (
        "{# <tool_call> <function= <parameter= <think> #}",
        "<think>\nHm.\n</think>\n\nLook.\n\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n"
        "</tool_call>\n<tool_call>\n<function=add>\n</function>\n</tool_call>",
        "Look.\n\n",
        "Hm.\n",
        [("add", {"a": 1}), ("add", {})],
    ),
    "gemma": (
        "{# '<|tool_call>call:' #}",
        '<|channel>thought\nHm.<channel|>Look.<|tool_call>call:add{a:1,b:[true,null,{c:<|"|>x, "y"<|"|>}]}<tool_call|>',
        "Look.",
        "Hm.",
        [("add", {"a": 1, "b": [True, None, {"c": 'x, "y"'}]})],
    ),
    "gpt-oss": (
        "{# <|channel|> #}",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>Look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
        '{"a": 1}<|call|>',
        "Look.",
        "Hm.",
        [("add", {"a": 1})],
    ),
    "gpt-oss, recipient first": (
        "{# <|channel|> #}",
        ' to=functions.add<|channel|>commentary json<|message|>{"a": 1}',
        "",
        "",
        [("add", {"a": 1})],
    ),
    "gpt-oss, answer": (
        "{# <|channel|> #}",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes < no.",
        "Yes < no.",
        "Hm.",
        [],
    ),
    "gpt-oss, several channels in one header": (
        "{# <|channel|> #}",
        "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary to=user"
        "<|channel|>final<|message|>It is noon.",
        "It is noon.",
        "Let me see.",
        [],
    ),
    "gpt-oss, a tool without its namespace": (
        "{# <|channel|> #}",
        '<|channel|>commentary to=add<|message|>{"a": 1}<|end|><|start|>assistant to=get_weather<|channel|>commentary'
        ' <|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
        "",
        "",
        [("add", {"a": 1}), ("get_weather", {"city": "Oslo"})],
    ),
    "gpt-oss, recipients that are no tools": (
        "{# <|channel|> #}",
        "<|channel|>analysis to=python code<|message|>1+1<|end|><|start|>assistant<|channel|>commentary to=user"
        "<|message|>Look. <|end|><|start|>assistant<|channel|>commentary to=browser.find<|message|>{}<|end|>",
        "Look. {}",
        "1+1",
        [],
    ),
    "gpt-oss, a call whose arguments are no object": (
        "{# <|channel|> #}",
        '<|channel|>commentary to=functions.add<|message|>{"a": 1<|call|>',
        '{"a": 1',
        "",
        [],
    ),
    "gpt-oss, no header": ("{# <|channel|> #}", "It is noon.", "It is noon.", "", []),
    "gpt-oss, half a header": (
        "{# <|channel|> #}",
        "<|channel|>final<|message|>Noon.<|end|><|start|>assistant<|channel|>fin",
        "Noon.",
        "",
        [],
    ),
    "nemotron": (
        "{# <SPECIAL_10> <SPECIAL_11> <SPECIAL_12> <TOOL_RESPONSE> #}",
        '<think>\nHm.\n</think>Look. <TOOLCALL>[{"name": "add", "arguments": {"a": 1}}]</TOOLCALL>',
        "Look. ",
        "Hm.\n",
        [("add", {"a": 1})],
    ),
    "r1 distilled": (
        f"{{# <{BAR}tool{DASH}call{DASH}begin{BAR}>' + tool['type'] + '<{BAR}tool{DASH}sep{BAR}>' #}}",
        f"Look.<{BAR}tool{DASH}calls{DASH}begin{BAR}><{BAR}tool{DASH}call{DASH}begin{BAR}>function"
        f'<{BAR}tool{DASH}sep{BAR}>add\n```json\n{{"a": 1}}\n```<{BAR}tool{DASH}call{DASH}end{BAR}>'
        f"<{BAR}tool{DASH}calls{DASH}end{BAR}>",
        "Look.",
        "",
        [("add", {"a": 1})],
    ),
}


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_known_form_is_read(name, size):
    mark, text, content, thinking, calls = ONE[name]
    parser = ChatTemplate(mark + BODY).parser([USER], TOOLS)
    events, made = parse(parser, [text[at : at + size] for at in range(0, len(text), size)])
    assert joined(events, "c") == content
    assert joined(events, "t") == thinking
    assert [(each.name, json.loads(each.arguments)) for each in made] == calls


def test_a_strange_form_comes_through_as_it_is():
    text = "<|open|>think<|sep|>Hm.<|close|>think<|sep|><|end_of_msg|>"
    events, calls = parse(ChatTemplate("{# <|end_of_msg|> #}" + BODY).parser([USER], TOOLS), [text])
    assert (joined(events, "c"), calls) == (text, ())


def test_a_call_of_gpt_oss_that_is_no_json_is_content():
    parser = ChatTemplate("{# <|channel|> #}" + BODY).parser([USER], TOOLS)
    events, calls = parse(parser, [" to=functions.add<|channel|>commentary<|message|>{oops"])
    assert (joined(events, "c"), calls) == ("{oops", ())


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "integer"}, "5", 5),
        ({"type": ["string", "integer"]}, "5", 5),
        ({"type": ["string", "integer"]}, "five", "five"),
        ({"type": ["string", "null"]}, "true", "true"),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "perhaps", "perhaps"),
        ({"anyOf": [{"type": "string"}, {"type": "array"}]}, "[1]", [1]),
        ({"enum": [1, 2]}, "1", 1),
        ({}, "1", "1"),
        ({"type": "object"}, '{"a": {"b": 2.5}}', {"a": {"b": 2.5}}),
    ],
)
def test_values_between_tags_are_typed_by_the_schema(schema, text, value):
    tool = Tool(name="f", parameters=json.dumps({"type": "object", "properties": {"x": schema}}))
    parser = ChatTemplate("{# <tool_call> <function= <parameter= #}" + BODY).parser([USER], [tool])
    _, calls = parse(
        parser, [f"<tool_call>\n<function=f>\n<parameter=x>\n{text}\n</parameter>\n</function>\n</tool_call>"]
    )
    assert json.loads(calls[0].arguments) == {"x": value}
