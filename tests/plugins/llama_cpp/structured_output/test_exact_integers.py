import json

import pytest
from tests.plugins.llama_cpp.random_walk import COMPILER

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.exact_integers import exact_grammar, needs_exact_numbers

BIG = 1234567890123456789


@pytest.mark.parametrize(
    ("schema", "needed"),
    [
        ({"const": 2**53}, False),
        ({"const": 2**53 + 1}, True),
        ({"const": 2**60}, False),  # a power of two is a float
        ({"properties": {"id": {"enum": [1, {"in": [BIG]}]}}}, True),
        ({"default": BIG, "examples": [BIG]}, False),
        ({"const": 10**400}, True),
        ({"const": str(BIG)}, False),
    ],
)
def test_only_listed_integers_that_no_float_holds_need_rules(schema, needed):
    assert needs_exact_numbers(schema) is needed


def test_a_path_that_cannot_be_written_is_refused_by_its_keywords():
    schema = {"type": "object", "patternProperties": {"^a": {"const": BIG}}}
    with pytest.raises(InvalidRequestError, match="patternProperties"):
        exact_grammar(schema, {"whitespace_pattern": " ?"})


def test_schemas_within_a_grammar_are_exact_too():
    """The schemas of tools that must be called stand in one grammar."""
    listed = json.dumps({"type": "object", "properties": {"id": {"enum": [BIG, BIG + 1]}}, "required": ["id"]})
    grammar = f'start: "a" %json {listed} | "b" %json {listed} | "c" %json {{"type": "null"}}'
    native = COMPILER.matcher("lark", grammar)
    for text, right in (
        (f'a{{"id":{BIG}}}', True),
        (f'b{{"id": {BIG + 1}}}', True),
        ("cnull", True),
        ('a{"id":1}', False),
    ):
        native.reset()
        assert (native.try_consume_tokens(list(text.encode())) == len(text) and native.is_accepting()) is right
