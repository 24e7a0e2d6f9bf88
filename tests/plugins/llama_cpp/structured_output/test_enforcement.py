"""Random texts that a schema's constraint allows satisfy the schema."""

import pytest
from tests.plugins.llama_cpp.random_walk import accepts, schema_violations

TTL = {"type": "integer", "multipleOf": 86400, "minimum": 0, "maximum": 31536000}
BIG = 1234567890123456789
PART = {
    "type": "object",
    "properties": {
        "id": {"$ref": "#/$defs/Id"},
        "name": {"$ref": "#/$defs/Name"},
        "part": {"$ref": "#/$defs/Part"},
    },
    "required": ["id"],
}
CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "good": {"type": "boolean"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"ttl": TTL}, "required": ["ttl"]},
        {"type": "integer", "multipleOf": 123456789},
        {"type": "integer", "multipleOf": 1000000, "exclusiveMaximum": -3},
        {"type": ["integer", "null"], "multipleOf": 5000, "minimum": 100},
        {"type": "integer", "multipleOf": 65537, "minimum": 10**12},
        {"multipleOf": 4099},
        {"type": "number", "multipleOf": 2048.5},
        {"type": "string", "pattern": "^((a{1,50}){1,50}){1,50}$"},
        {"type": "string", "pattern": "^(a{1,300}b?){1,300}c$"},
        {"type": "string", "pattern": "^(?=.*[0-9])[a-z0-9]{3,9}$"},
        {"oneOf": [CAT, DOG]},
        {"$defs": {"cat": CAT, "dog": DOG}, "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}]},
        {"oneOf": [{"properties": {name: {}}, "additionalProperties": False} for name in ("a", "b")]},
        {"type": "object", "properties": {"a": {}}, "required": ["b"]},
        {"type": "object", "additionalProperties": {"type": "number"}, "propertyNames": {"type": "string"}},
        {"type": "object", "additionalProperties": {"type": "number"}, "propertyNames": {"enum": ["a", "b"]}},
        {"type": "object", "propertyNames": {"pattern": "^[a-z]{2}$"}},
        {"type": "object", "propertyNames": {"maxLength": 3}},
        {"type": "object", "propertyNames": {"format": "uuid"}, "maxProperties": 2},
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 2},
        {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
        {"type": "string", "maxLength": 2**40},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 2**40},
        {"$schema": "urn:nowhere", "type": "boolean"},
        {"type": "object", "properties": {"a": {"not": {}}, "b": {"type": "integer"}}},
        {"const": "a\x7fb"},
        {"type": "object", "properties": {"a\x7f": {"const": "\x01\n"}}, "required": ["a\x7f"]},
    ],
)
def test_what_may_be_written_keeps_to_the_schema(schema):
    assert schema_violations(schema) == []


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (TTL, ["0", "86400", "31536000"], ["2", "31536001", "31622400", "-86400"]),
        ({"type": "integer", "multipleOf": 5000, "minimum": 1}, ["5000", "100000000"], ["0", "5001", "-5000"]),
        ({"oneOf": [CAT, DOG]}, ['{"kind":"cat"}', '{"kind":"dog","good":true}'], ["{}", '{"lives":9}']),
        ({"type": "object", "propertyNames": {"enum": ["a"]}}, ['{"a":[]}', "{}"], ['{"b":1}']),
        ({"type": "object", "propertyNames": {"pattern": "^x"}}, ['{"xy":1}'], ['{"y":1}']),
        ({"items": {"enum": [1, 2]}, "type": "array", "uniqueItems": True}, ["[]", "[1,2]"], ["[1,1]"]),
        ({"maximum": 5, "exclusiveMaximum": True, "type": "integer"}, ["4"], ["5"]),
        ({"const": "a\x7fb"}, ['"a\\u007fb"'], ['"ab"', '"a\\u007f\\u0062"']),
        ({"type": "string", "pattern": "^(?=.{2,3}$)a+$"}, ['"aa"', '"aaa"'], ['"a"', '"aaaa"']),
        ({"type": "string", "format": "path"}, ['"any/thing"'], []),
        ({"enum": [BIG, 5, "x"]}, [str(BIG), "5", '"x"'], ["1234567890123456768", "6"]),
        ({"const": 10**22 + 1}, ["10000000000000000000001"], ["1e22", "10000000000000000000000"]),
        ({"const": {"id": BIG}}, [f'{{"id": {BIG}}}'], ['{"id": 1234567890123456768}']),
        ({"anyOf": [{"const": BIG}, {"type": "null"}]}, ["null", str(BIG)], ["1"]),
        ({"type": "array", "items": {"const": BIG}, "minItems": 2}, [f"[{BIG}, {BIG},{BIG}]"], [f"[{BIG}]", "[1,1]"]),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "id": {"const": BIG}, "z": {"type": "boolean"}},
            },
            ["{}", '{"a":1}', '{ "a" : 1, "z":true}', f'{{"a":1,"id":{BIG},"z":true}}', f'{{"id":{BIG}}}'],
            ['{"a":1,}', '{,"z":true}', '{"z":true,"a":1}', '{"id":1}'],
        ),
        (
            {"$ref": "#/$defs/Part"}
            | {"$defs": {"Part": PART, "Id": {"enum": [BIG]}, "Name": {"type": "string", "maxLength": 2}}},
            [f'{{"id":{BIG},"name":"ab"}}', f'{{"id":{BIG},"part":{{"id":{BIG}}}}}'],
            ['{"name":"ab"}', f'{{"id":{BIG},"name":"abc"}}', f'{{"id":{BIG},"part":{{}}}}'],
        ),
        ({"patternProperties": {"^a": {"type": "integer"}}, "type": "object"}, ['{"ab":1}'], ['{"b":1}', '{"a":"x"}']),
    ],
)
def test_what_is_allowed_and_what_is_not(schema, right, wrong):
    assert [text for text in right if not accepts(schema, text)] == []
    assert [text for text in wrong if accepts(schema, text)] == []
