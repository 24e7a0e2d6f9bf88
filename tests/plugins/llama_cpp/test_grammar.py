import json

import pytest

from puna.backend import Constraint, InvalidRequestError, Sampling

ANY_OBJECT = Constraint("json_schema", '{"type": "object"}')
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "alive": {"type": "boolean"},
    },
    "required": ["name", "age", "alive"],
    "additionalProperties": False,
}


@pytest.fixture
async def chatter(load):
    return await load("chatter", context_length=1024)


async def test_the_reference_text_is_allowed_as_it_is(load, write):
    model = await load("scripted")
    texts, end = await write(model, "e", constraint=ANY_OBJECT)
    assert texts == ['{"na', 'me": "Ada"', ', "age"', ": 36", "}"]
    assert (end.reason, end.output_tokens) == ("stop", 6)


async def test_a_model_that_wants_to_write_something_else_writes_json(load, write):
    texts, _ = await write(await load("scripted"), "a", constraint=ANY_OBJECT, max_tokens=20)
    assert texts[0].startswith("{")


@pytest.mark.parametrize("seed", range(4))
async def test_a_schema_holds_at_high_temperature_and_keeps_its_order(chatter, write, seed):
    constraint = Constraint("json_schema", json.dumps(PERSON))
    texts, end = await write(
        chatter, "hello", constraint=constraint, sampling=Sampling(temperature=1.5, seed=seed), max_tokens=400
    )
    assert end.reason == "stop"
    person = json.loads("".join(texts))
    assert list(person) == ["name", "age", "alive"]
    assert len(person["name"]) <= 8
    assert 0 <= person["age"] <= 120
    assert isinstance(person["alive"], bool)


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("regex", "(ab|cd){3}", {"ab", "cd"}),
        ("lark", 'start: ("ab" | "cd")~3', {"ab", "cd"}),
        ("gbnf", 'root ::= ("ab" | "cd") ("ab" | "cd") ("ab" | "cd")', {"ab", "cd"}),
    ],
)
async def test_other_grammars(chatter, write, kind, text, wanted):
    texts, end = await write(chatter, "hello", constraint=Constraint(kind, text))
    said = "".join(texts)
    assert (len(said), end.reason) == (6, "stop")
    assert {said[:2], said[2:4], said[4:]} <= wanted


async def test_marks_are_the_vocabularys_tokens_where_it_has_them(chatter, write):
    constraint = Constraint("lark", r'start: %mark "<|im_start|>" "<|im_start|> \" %mark" %mark "<|call|>"')
    texts, end = await write(chatter, "hello", constraint=constraint, preserved_tokens=("<|im_start|>",), max_tokens=99)
    assert (texts[0], "".join(texts[1:]), end.reason) == ("<|im_start|>", '<|im_start|> " %mark<|call|>', "stop")


@pytest.mark.parametrize(
    ("constraint", "named"),
    [
        (Constraint("json_schema", '{"type": "array", "uniqueItems": true}'), "uniqueItems"),
        (Constraint("json_schema", '{"properties": {"a": {"not": {}}}}'), "not"),
        (Constraint("json_schema", '{"type": "string", "pattern": "(?=a)b"}'), "look-ahead"),
        (Constraint("json_schema", '{"type": "string", "format": "shoe-size"}'), "shoe-size"),
        (Constraint("json_schema", '{"type": "nosuch"}'), "nosuch"),
        (Constraint("json_schema", "{"), "cannot be"),
        (Constraint("gbnf", 'root ::= "a'), "GBNF"),
        (Constraint("lark", "start: nothing"), "nothing"),
        (Constraint("lark", 'start: "%json {" %json {"type": "object", "minProperties": 3}'), "minProperties"),
        (Constraint("regex", "(a"), "unclosed"),
        (Constraint("regex", "(a?){5000}a{5000}"), "too complex"),
        (
            Constraint("json_schema", '{"properties": {"a": {"pattern": "^(a?){5000}a{5000}$"}}}'),
            r'\{5000\}\$" is too complex',
        ),
        (
            Constraint("json_schema", '{"patternProperties": {"^(a?){5000}a{5000}$": {}}}'),
            r'\{5000\}\$" is too complex',
        ),
        (Constraint("sonnet", "abab"), "sonnet"),
    ],
)
async def test_what_cannot_be_enforced_is_refused_and_named(chatter, write, constraint, named):
    with pytest.raises(InvalidRequestError, match=named) as caught:
        await write(chatter, "hello", constraint=constraint)
    assert "\n" not in str(caught.value)
