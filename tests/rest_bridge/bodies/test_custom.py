import pytest
from tests.rest_bridge.decoding import decoded

from puna.go.json_scanner import BodyError
from puna_rest.bodies import custom, native

SECOND = 10**9


def field(name, text, kind=native.CHAT):
    return decoded(kind, f'{{"{name}": {text}}}')[1][name]


def refusal(name, text):
    with pytest.raises(BodyError) as caught:
        field(name, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("null", None),
        ("0", 0),
        ("1.5", 1_500_000_000),
        ("-3", -1),
        ("1e12", -1),
        ('"5m"', 300 * SECOND),
        ('"1h2m3s"', 3723 * SECOND),
        ('"-1s"', -1),
        ('"-1"', -1),
        ('"0"', 0),
    ],
)
def test_keep_alive(text, nanoseconds):
    assert field("keep_alive", text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('"5"', 'time: missing unit in duration "5"'),
        ('"soon"', 'time: invalid duration "soon"'),
        ("true", "Unsupported type: 'bool'"),
        ("[]", "Unsupported type: '[]interface {}'"),
        ("{}", "Unsupported type: 'map[string]interface {}'"),
        ("1e308", "keep_alive is out of range: 1e+308"),
    ],
)
def test_keep_alive_that_is_refused(text, error):
    assert refusal("keep_alive", text) == error


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("false", False), ("null", None), *[(f'"{each}"', each) for each in custom.LEVELS]],
)
def test_think(text, value):
    assert field("think", text) == value


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('"a<"', 'invalid think value: "a<" (must be "high", "medium", "low", "max", true, or false)'),
        ("3", 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
    ],
)
def test_think_that_is_refused(text, error):
    assert refusal("think", text) == error


def call(text):
    messages = '[{"tool_calls": [{"function": {"name": "f", "arguments": ' + text + "}}]}]"
    return field("messages", messages)[0]["tool_calls"][0]["function"]["arguments"]


@pytest.mark.parametrize(("text", "kept"), [('{"b": 1.0, "a": 2}', '{"b": 1.0, "a": 2}'), ("null", "{}"), ("{}", "{}")])
def test_arguments_keep_their_text(text, kept):
    assert call(text) == kept


@pytest.mark.parametrize("text", ['"{}"', "[1]", "3"])
def test_arguments_that_are_no_object(text):
    with pytest.raises(BodyError, match=custom.NO_OBJECT):
        call(text)


@pytest.mark.parametrize(
    "parameters",
    [
        '{"type": "object", "properties": {"a": {"type": ["string", "null"], "enum": [1]}}, "required": ["a"]}',
        '{"properties": {"a": {"anyOf": [{"type": "string"}], "properties": {"b": {"type": null}}}}}',
        '{"$defs": {"x": 1}, "unknown": [1, 2]}',
    ],
)
def test_tool_schemas_keep_their_text(parameters):
    tools = '[{"type": "function", "function": {"name": "f", "parameters": ' + parameters + "}}]"
    assert field("tools", tools)[0]["function"]["parameters"]["text"] == parameters


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ('{"required": 3}', "number"),
        ('{"properties": {"a": {"type": 3}}}', "number"),
        ('{"properties": {"a": {"items": {}, "description": 3}}}', "number"),
        ('{"properties": 3}', "can't find closing"),
        ('{"properties": {"a": {"properties": []}}}', "can't find closing"),
    ],
)
def test_tool_schemas_that_are_refused(parameters, named):
    assert named in refusal("tools", '[{"function": {"parameters": ' + parameters + "}}]")


def test_tools_without_a_schema_have_an_empty_text():
    tools = field("tools", '[{"function": {"name": "f"}}, {"function": {"parameters": null}}]')
    assert [each["function"]["parameters"]["text"] for each in tools] == ["", ""]
