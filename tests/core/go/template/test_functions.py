import re

import pytest

from puna.go.template.functions import FUNCTIONS, CallError
from puna.go.template.values import MISSING, STRINGS, Boxed, ContainerType, Map, Pointer, Slice, Struct, StructType

TYPED = StructType("api.Typed", (), {"ToTypeScriptType": lambda _: "string[]"})
COUNTS = Map(ContainerType("map[string]int", zero=lambda: 0), {"a": 1})


def call(name, *arguments):
    return FUNCTIONS[name].call(*arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("index", ([1, [2, 3]], 1, 0), 2),
        ("index", ("é", 0), 0xC3),
        ("index", ({"a": {"b": 1}}, "a", "b"), 1),
        ("index", (COUNTS, "z"), 0),
        ("index", (b"ab", 1), 98),
        ("index", (5,), 5),
        ("index", (Slice(STRINGS, ["x"]), Boxed(0)), "x"),
        ("slice", ("abc", 1), "bc"),
        ("slice", ("abc",), "abc"),
        ("slice", ([1, 2, 3], 1, 2), [2]),
        ("slice", ([1, 2, 3], 0, 1, 2), [1]),
        ("slice", (b"abc", 0, 2), b"ab"),
        ("slice", ("é", 0, 1), "\udcc3"),
        ("len", ("é",), 2),
        ("len", ([1, 2],), 2),
        ("len", (COUNTS,), 1),
        ("len", (Slice(STRINGS, None),), 0),
        ("not", (0,), True),
        ("ne", (1, 2), True),
        ("gt", (2, 2), False),
        ("ge", (2, 2), True),
        ("print", (1, 2, "a"), "1 2a"),
        ("println", ("a", 1), "a 1\n"),
        ("printf", ("%d", 1), "1"),
        ("html", ("<a href='x'>&\"\0",), "&lt;a href=&#39;x&#39;&gt;&amp;&#34;\ufffd"),
        ("html", (MISSING, 1, 2), "<no value>1 2".replace("<", "&lt;").replace(">", "&gt;")),
        ("js", ("<a>'\"\\&=\n\x7fé\u2028",), r"\u003Ca\u003E\'\"\\\u0026\u003D\u000A" + "\x7fé" + r"\u2028"),
        ("urlquery", ("a b&é~/",), "a+b%26%C3%A9~%2F"),
        ("json", ({"b": 1.0, "a": None},), '{"a":null,"b":1}'),
        ("json", (float("inf"),), ""),
        ("toTypeScriptType", (Struct(TYPED),), "string[]"),
        ("toTypeScriptType", (Pointer(Struct(TYPED), "api.Typed"),), "string[]"),
        ("toTypeScriptType", ("text",), "any"),
    ],
)
def test_results(name, arguments, result):
    assert call(name, *arguments) == result


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("index", (MISSING, 0), "index of untyped nil"),
        ("index", ([1], 1), "reflect: slice index out of range"),
        ("index", ("a", 1), "reflect: string index out of range"),
        ("index", ([1], 2), "index out of range: 2"),
        ("index", ([1], -1), "index out of range: -1"),
        ("index", ([1], "a"), "cannot index slice/array with type string"),
        ("index", ([1], True), "cannot index slice/array with type bool"),
        ("index", ([1], MISSING), "cannot index slice/array with nil"),
        ("index", ({"a": 1}, 0), "value has type int; should be string"),
        ("index", ({"a": 1}, MISSING), "value is nil; should be of type string"),
        ("index", (5, 0), "can't index item of type int"),
        ("index", (Pointer(None, "api.Typed"), 0), "index of nil pointer"),
        ("slice", (MISSING,), "slice of untyped nil"),
        ("slice", ("abc", 2, 1), "invalid slice index: 2 > 1"),
        ("slice", ("abc", 4), "index out of range: 4"),
        ("slice", ("abc", 0, 1, 2), "cannot 3-index slice a string"),
        ("slice", ([1], 0, 0, 0, 0), "too many slice indexes: 4"),
        ("slice", ({}, 0), "can't slice item of type map[string]interface {}"),
        ("len", (3,), "len of type int"),
        ("len", (Boxed(None),), "len of nil pointer"),
        ("len", (Struct(TYPED),), "len of type api.Typed"),
        ("call", (MISSING,), "call of nil"),
        ("call", ("a",), "non-function {name} of type string"),
    ],
)
def test_refused_arguments(name, arguments, text):
    with pytest.raises(CallError) as caught:
        call(name, *arguments)
    assert str(caught.value) == text


def test_a_part_of_a_nil_slice_is_nil_and_keeps_its_type():
    part = call("slice", Slice(STRINGS, None))
    assert part.nil
    assert part.type is STRINGS
    assert call("slice", Slice(STRINGS, ["a", "b"]), 1).items == ["b"]


def test_dates_are_of_today_and_of_the_day_before():
    today, before = call("currentDate"), call("yesterdayDate")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", today)
    assert before < today
