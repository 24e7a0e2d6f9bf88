import pytest

from puna.go.template.comparison import ComparisonError, equal, less, less_or_equal
from puna.go.template.values import MISSING, STRINGS, Boxed, Map, Pointer, Slice, Struct, StructType

POINT = StructType("api.Point", ())
HERE, THERE = Struct(POINT), Struct(POINT)


@pytest.mark.parametrize(
    ("values", "same"),
    [
        (("a", "b", "a"), True),
        (("a", "b"), False),
        ((1, Boxed(1)), True),
        ((True, True), True),
        ((1.5, 1.5), True),
        ((1 + 2j, 1 + 2j), True),
        ((MISSING, "a"), False),
        (("a", MISSING), False),
        ((MISSING, MISSING), True),
        ((Boxed(None), MISSING), True),
        ((MISSING, Slice(STRINGS, None)), True),
        ((MISSING, Slice(STRINGS, [])), False),
        ((Pointer(HERE, "api.Point"), Pointer(HERE, "api.Point")), True),
        ((Pointer(HERE, "api.Point"), Pointer(THERE, "api.Point")), False),
        ((Pointer(None, "api.Point"), Pointer(None, "api.Point")), True),
        ((Pointer(None, "api.Point"), Pointer(HERE, "api.Point")), False),
    ],
)
def test_equality(values, same):
    assert equal(*values) is same


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("a",), "missing argument for comparison"),
        (("a", 1), "incompatible types for comparison: string and int"),
        ((1, 1.0), "incompatible types for comparison: int and float64"),
        ((True, 1), "incompatible types for comparison: bool and int"),
        ((["x"], ["x"]), "non-comparable type [x]: []interface {}"),
        ((HERE, ["x"]), "non-comparable types {}: api.Point, []interface {}: [x]"),
    ],
)
def test_what_cannot_be_equal_is_an_error_in_gos_words(values, text):
    with pytest.raises(ComparisonError) as caught:
        equal(*values)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("first", "second", "lower", "at_most"),
    [
        (1, 2, True, True),
        (2, 2, False, True),
        (2.5, 1.5, False, False),
        ("a", "b", True, True),
        ("a", "a", False, True),
        ("z", "é", True, True),
        ("\uffff", "\U00010000", True, True),
        (Boxed("b"), "a", False, False),
    ],
)
def test_order_of_numbers_and_of_the_bytes_of_strings(first, second, lower, at_most):
    assert less(first, second) is lower
    assert less_or_equal(first, second) is at_most


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (True, False, "invalid type for comparison"),
        (1j, 2j, "invalid type for comparison"),
        (MISSING, 1, "invalid type for comparison"),
        ([], [], "invalid type for comparison"),
        (1, "a", "incompatible types for comparison: int and string"),
    ],
)
def test_what_has_no_order(first, second, text):
    with pytest.raises(ComparisonError) as caught:
        less(first, second)
    assert str(caught.value) == text


def test_a_nil_map_is_equal_to_no_value_and_to_another_nil_map():
    nil = Map(STRINGS, None)
    assert equal(MISSING, nil)
    assert equal(nil, nil)
