import pytest

from puna.go.template.formatting import Verb, formatted, printed, sprint, text
from puna.go.template.values import (
    ANY_MAP,
    MISSING,
    STRINGS,
    Boxed,
    Field,
    Map,
    Pointer,
    Slice,
    Struct,
    StructType,
    Unsigned,
)

PAIR = StructType("api.Pair", (Field("A"), Field("B")))
NAMED = StructType("api.Named", (Field("A"),), {"String": lambda struct: f"<{struct.values['A']}>"})
VALUE = Struct(PAIR, 1, "x")


@pytest.mark.parametrize(
    ("value", "verb", "out"),
    [
        (-5, Verb("d", width=6), "    -5"),
        (-5, Verb("d", width=6, zero=True), "-00005"),
        (-5, Verb("d", width=6, minus=True), "-5    "),
        (5, Verb("d", precision=3), "005"),
        (0, Verb("d", precision=0), ""),
        (5, Verb("b"), "101"),
        (8, Verb("o", sharp=True), "010"),
        (8, Verb("O"), "0o10"),
        (255, Verb("X", sharp=True), "0XFF"),
        (233, Verb("c"), "é"),
        (39, Verb("q"), "'\\''"),
        (10, Verb("q"), "'\\n'"),
        (233, Verb("U"), "U+00E9"),
        (233, Verb("U", sharp=True), "U+00E9 'é'"),
        (0xD800, Verb("c"), "\ufffd"),
        (Unsigned(7), Verb("v", sharp=True), "0x7"),
        (True, Verb("t", width=5), " true"),
        (3.14159, Verb("f", precision=2), "3.14"),
        (3.0, Verb("e"), "3.000000e+00"),
        (1e6, Verb("G"), "1E+06"),
        (-1.5, Verb("f", width=8, zero=True, precision=1), "-00001.5"),
        (float("inf"), Verb("f"), "+Inf"),
        (float("-inf"), Verb("v"), "-Inf"),
        (float("nan"), Verb("v"), "NaN"),
        (1 + 2j, Verb("v"), "(1+2i)"),
        (1.5 - 2j, Verb("f", precision=1), "(1.5-2.0i)"),
        ("héllo", Verb("s", precision=2), "hé"),
        ("hi", Verb("x", space=True), "68 69"),
        ("hi", Verb("X", sharp=True), "0X6869"),
        ("a`b", Verb("q", sharp=True), '"a`b"'),
        ("ab", Verb("q", sharp=True), "`ab`"),
        (b"hi", Verb("s"), "hi"),
        (b"hi", Verb("v"), "[104 105]"),
        ([1, "a"], Verb("q"), "['\\x01' \"a\"]"),
        ([1, "a"], Verb("v", sharp=True), '[]interface {}{1, "a"}'),
        (Slice(STRINGS, None), Verb("v", sharp=True), "[]string(nil)"),
        (Map(ANY_MAP, None), Verb("v", sharp=True), "map[string]interface {}(nil)"),
        ({"b": 1, "a": [2]}, Verb(), "map[a:[2] b:1]"),
        (VALUE, Verb(), "{1 x}"),
        (VALUE, Verb("v", plus=True), "{A:1 B:x}"),
        (VALUE, Verb("v", sharp=True), 'api.Pair{A:1, B:"x"}'),
        (Pointer(VALUE, "api.Pair"), Verb(), "&{1 x}"),
        ([Pointer(VALUE, "api.Pair")], Verb(), "[0xc000000000]"),
        (Pointer(None, "api.Pair"), Verb(), "<nil>"),
        (Pointer(None, "api.Pair"), Verb("v", sharp=True), "(nil)"),
        (Struct(NAMED, "n"), Verb("s"), "<n>"),
        (Struct(NAMED, "n"), Verb("d"), "{%!d(string=n)}"),
        (Pointer(VALUE, "api.Pair"), Verb("T"), "*api.Pair"),
        (MISSING, Verb("T"), "<nil>"),
        (MISSING, Verb("d"), "%!d(<nil>)"),
        ([None], Verb("d"), "[<nil>]"),
        (Boxed("b"), Verb("s", width=3), "  b"),
        (True, Verb("d"), "%!d(bool=true)"),
    ],
)
def test_verbs(value, verb, out):
    assert formatted(value, verb) == out


@pytest.mark.parametrize(
    ("value", "out"),
    [
        (MISSING, "<no value>"),
        (None, "<nil>"),
        ("<b>", "<b>"),
        (Pointer(VALUE, "api.Pair"), "{1 x}"),
        (Pointer(None, "api.Pair"), "<nil>"),
        (1e21, "1e+21"),
    ],
)
def test_an_action_follows_pointers_and_shows_missing_values(value, out):
    assert printed(value) == out


def test_print_puts_a_space_between_two_values_of_which_neither_is_a_string():
    assert sprint([1, 2, "a", 3, "b", "c", True, None]) == "1 2a3bctrue <nil>"
    assert sprint(["a", "b", 1], line=True) == "a b 1\n"
    assert sprint([]) == ""
    assert text({"a": None}) == "map[a:<nil>]"
