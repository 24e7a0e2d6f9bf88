import json

import pytest
from tests.core.prompt.jinja.samples import TOOLS
from tests.core.prompt.jinja.test_parser import joined, parse

from puna.messages import Message, Think, Tool
from puna.prompt.jinja.template import ChatTemplate

USER = Message(role="user", content="hi")
BODY = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
BAR, DASH = "\uff5c", "\u2581"
NS = "]<]minimax[>["
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
    "gemma, markers that mean nothing": (
        "{# '<|tool_call>call:' #}",
        "It <channel|>rains.<|channel>thought\n<channel|><channel|>",
        "It rains.",
        "",
        [],
    ),
    "gemma, thoughts again": (
        "{# '<|tool_call>call:' #}",
        "<|channel>thought\nHm.<channel|>One.<|channel>thought\nSo.<channel|>Two.",
        "One.Two.",
        "Hm.So.",
        [],
    ),
    "kimi 3": (
        "{# <|end_of_msg|> #}",
        "<|open|>think<|sep|>Hm.<|close|>think<|sep|><|open|>response<|sep|>Look.<|close|>response<|sep|>"
        '<|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="city" type="string"'
        '<|sep|>Rome <b><|close|>argument<|sep|><|open|>argument key="days" type="number"<|sep|>2<|close|>argument'
        '<|sep|><|close|>call<|sep|><|open|>call tool="add" index="2"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
        "<|close|>message<|sep|><|end_of_msg|>",
        "Look.",
        "Hm.",
        [("get_weather", {"city": "Rome <b>", "days": 2}), ("add", {})],
    ),
    "kimi 3, thoughts that are not closed": (
        "{# <|end_of_msg|> #}",
        "<|open|>think<|sep|>Hm.<|open|>response<|sep|>Noon.<|close|>response<|sep|><|close|>message<|sep|>",
        "Noon.",
        "Hm.",
        [],
    ),
    "minimax 3": (
        f"{{# {NS} #}}",
        f'<mm:think>Hm.</mm:think>Look.{NS}<tool_call>\n{NS}<invoke name="get_weather">{NS}<city>Rome <b>{NS}</city>'
        f"{NS}<days>2{NS}</days>{NS}</invoke>\n"
        f'{NS}<invoke name="nest">{NS}<list>{NS}<item>1{NS}</item>{NS}<item>2{NS}</item>{NS}</list>'
        f"{NS}<deep>{NS}<k>v{NS}</k>{NS}</deep>{NS}</invoke>\n{NS}</tool_call>",
        "Look.",
        "Hm.",
        [("get_weather", {"city": "Rome <b>", "days": 2}), ("nest", {"list": ["1", "2"], "deep": {"k": "v"}})],
    ),
    "minimax 3, no thoughts": (f"{{# {NS} #}}", "</mm:think>Noon.", "Noon.", "", []),
    "muse": (
        "{# <atem:function_calls> #}",
        " to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Look.<|eom|><|start|>assistant to=add"
        '<|message|><atem:function_calls><atem:invoke name="add"><atem:parameter name="a">1</atem:parameter>'
        "</atem:invoke></atem:function_calls><|eot|>",
        "Look.",
        "Hm.",
        [("add", {"a": 1})],
    ),
    "muse, a call that cannot be read": (
        "{# <atem:function_calls> #}",
        " to=add<|message|><atem:function_calls>oops<|eot|>",
        "<atem:function_calls>oops",
        "",
        [],
    ),
    "solar": (
        "{# <|begin|>assistant<|think|> #}",
        "<|think|>Hm.<|end|><|begin|>assistant<|content|>Look.<|end|><|begin|>assistant<|tool_calls|>"
        '<|tool_call:begin|>c1<|tool_call:name|>add<|tool_call:args|>{"a": 1}<|tool_call:end|><|calls|>',
        "Look.",
        "Hm.",
        [("add", {"a": 1})],
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


def test_a_list_in_minimax_3_is_typed_by_its_items():
    nest = Tool(
        name="nest",
        parameters='{"type":"object","properties":{"list":{"type":"array","items":{"type":"integer"}},'
        '"item":{"type":"object","properties":{"item":{"type":"string"}}}}}',
    )
    parser = ChatTemplate(f"{{# {NS} #}}" + BODY).parser([USER], [nest])
    text = (
        f'{NS}<tool_call>{NS}<invoke name="nest">{NS}<list>{NS}<item>1{NS}</item>{NS}</list>'
        f"{NS}<item>{NS}<item>2{NS}</item>{NS}</item>{NS}</invoke>{NS}</tool_call>"
    )
    _, (call,) = parse(parser, [text])
    assert json.loads(call.arguments) == {"list": [1], "item": {"item": "2"}}


def test_ids_of_kimi_2_name_the_tool():
    parser = ChatTemplate("{# <|tool_calls_section_begin|> <|tool_call_begin|> #}" + BODY).parser([USER], TOOLS)
    calls = "".join(
        f"<|tool_call_begin|>functions.add:{number}<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
        for number in (0, 1)
    )
    _, made = parse(parser, [f"<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>"])
    assert [call.id for call in made] == ["functions.add:0", "functions.add:1"]


MARKED = (
    "{# <![CDATA[ #}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls %}"
    '<function name="{{ c.function.name }}">{% for k, v in c.function.arguments.items() %}'
    '<param name="{{ k }}">{{ v }}</param>{% endfor %}</function>{% endfor %}<|end|>{% endfor %}{{ tools }}'
)


@pytest.mark.parametrize(
    ("value", "city"),
    [("<![CDATA[a < b & c]]>", "a < b & c"), ("\n<![CDATA[</param>]]>\n", "</param>"), ("plain", "plain")],
)
def test_a_value_may_stand_in_cdata(value, city):
    text = f'<function name="get_weather"><param name="city">{value}</param><param name="days">2</param></function>'
    _, (call,) = parse(ChatTemplate(MARKED).parser([USER], TOOLS), [text])
    assert json.loads(call.arguments) == {"city": city, "days": 2}


def test_the_turn_of_gemma_is_opened_after_text_and_calls():
    left_open = "{# '<|tool_call>call:' #}{% for m in messages %}{{ m.content }}<turn|>\n{% endfor %}"
    assert ChatTemplate(left_open).render([USER]) == "hi<turn|>\n<|turn>model\n"
    opens = left_open + "{% if add_generation_prompt %}<|turn>model\n{% endif %}"
    assert ChatTemplate(opens).render([USER]) == "hi<turn|>\n<|turn>model\n"


@pytest.mark.parametrize(
    ("mark", "variable", "on", "off"),
    [
        ("<|end_of_msg|>", "thinking", "True", "False"),
        (NS, "thinking_mode", "enabled", "disabled"),
        ("<|begin|>assistant<|think|>", "reasoning_effort", "high", "minimal"),
    ],
)
def test_templates_are_told_of_thinking_by_their_own_names(mark, variable, on, off):
    template = ChatTemplate(f"{{# {mark} #}}{{{{ {variable} }}}}")
    assert [template.render([USER], think=Think(think, "high" if think else "")) for think in (True, False)] == [
        on,
        off,
    ]


def test_a_call_of_gpt_oss_that_is_no_json_is_content():
    parser = ChatTemplate("{# <|channel|> #}" + BODY).parser([USER], TOOLS)
    events, calls = parse(parser, [" to=functions.add<|channel|>commentary<|message|>{oops"])
    assert (joined(events, "c"), calls) == ("{oops", ())


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "string"}, "['a']", "['a']"),
        ({"type": "array"}, "['a', True, None, 1.5]", ["a", True, None, 1.5]),
        ({"type": "object"}, "{'a': ('b',)}", {"a": ["b"]}),
        ({"type": "array"}, "['a'", "['a'"),
        ({"type": "array"}, "[1e999, {1}]", "[1e999, {1}]"),
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
