import json

import llguidance
import pytest
from tests.plugins.llama_cpp.random_walk import COMPILER, END

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.compiler import Compiler, next_mask


def accepts(kind, constraint, text):
    native = COMPILER.matcher(kind, constraint)
    data = text.encode()
    return native.try_consume_tokens(list(data)) == len(data) and native.is_accepting()


@pytest.mark.parametrize(
    ("kind", "constraint", "right", "wrong"),
    [
        ("regex", "[ab]{2}c?", ["ab", "bac"], ["a", "abcc"]),
        ("gbnf", 'root ::= "yes" | "no" [!]*', ["yes", "no!!"], ["yes!", "maybe"]),
        ("lark", 'start: "a" /[0-9]+/', ["a12"], ["a"]),
        ("json_schema", "true", ['"text"', "[1]"], ["text"]),
    ],
)
def test_each_kind_allows_what_it_says(kind, constraint, right, wrong):
    assert [text for text in right if not accepts(kind, constraint, text)] == []
    assert [text for text in wrong if accepts(kind, constraint, text)] == []


@pytest.mark.parametrize(
    ("kind", "constraint", "why"),
    [
        ("regex", "(", "regular expression cannot be"),
        ("gbnf", "root ::= [", "GBNF grammar cannot be"),
        ("lark", 'begin: "a"', "Lark grammar cannot be"),
        ("json_schema", '{"type": "object", "not": {"required": ["a"]}}', "JSON schema cannot be enforced.*not"),
        ("json_schema", '{"type": "integer", "minimum": 2, "maximum": 1}', "JSON schema cannot be enforced"),
        ("yaml", "", "unknown kind"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_its_kind(kind, constraint, why):
    with pytest.raises(InvalidRequestError, match=why):
        COMPILER.matcher(kind, constraint)


def test_a_mark_is_a_special_token_or_its_text():
    tokenizer = llguidance.LLTokenizer("byte")
    grammar = 'start: %mark "<end>" /x/'
    as_token = Compiler(tokenizer, {"<end>": 200}).matcher("lark", grammar)
    assert next_mask(as_token)[200 // 8] == 1 << 200 % 8
    as_text = Compiler(tokenizer, {}).matcher("lark", grammar)
    assert as_text.try_consume_tokens(list(b"<end>x")) == 6


def test_directives_in_texts_and_comments_are_none():
    assert accepts("lark", 'start: "%json {" /%mark/ // %json nonsense\n', "%json {%mark")


def test_white_space_has_an_end():
    schema = json.dumps({"type": "array", "items": {"type": "integer"}})
    assert accepts("json_schema", schema, "[1, 2]")
    assert not accepts("json_schema", schema, "[1,   2]")


def test_the_first_mask_allows_what_may_begin():
    _, mask = COMPILER.start("regex", "a|b")
    allowed = int.from_bytes(mask, "little")
    assert [token for token in range(256) if allowed >> token & 1 and token != END] == [ord("a"), ord("b")]


def test_an_answer_that_its_constraint_outgrows_is_an_error():
    """llguidance then allows the end alone, with which a text that is cut would seem complete."""
    limits = llguidance.LLParserLimits(step_lexer_fuel=20_000)
    native = llguidance.LLMatcher(COMPILER._tokenizer, "start: /((a{1,50}){1,50}){1,50}b/", log_level=0, limits=limits)
    with pytest.raises(InvalidRequestError, match="too complex"):
        for _ in range(100):
            next_mask(native)
            native.consume_token(ord("a"))
