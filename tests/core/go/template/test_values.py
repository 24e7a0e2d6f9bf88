import pytest

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
    elements,
    entries,
    methods,
    to_json,
    truth,
    type_name,
    unbox,
)

CALL = StructType("api.Call", (Field("Name", "name"), Field("Index", "index", omit_empty=True), Field("Any", "any")))
LOUD = StructType("api.Loud", (), {"MarshalJSON": lambda _: '"loud"', "String": lambda _: "LOUD"})


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (None, False),
        (MISSING, False),
        ("", False),
        ("x", True),
        (0, False),
        (0.0, False),
        ([], False),
        ([None], True),
        ({}, False),
        (Struct(LOUD), True),
        (Pointer(None, "api.Loud"), False),
        (Pointer(Struct(LOUD), "api.Loud"), True),
        (Slice(STRINGS, None), False),
        (Slice(STRINGS, ["a"]), True),
        (Map(ANY_MAP, {}), False),
        (Boxed(0), False),
        (Boxed("x"), True),
    ],
)
def test_truth(value, holds):
    assert truth(value) is holds


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a", "string"),
        (True, "bool"),
        (1, "int"),
        (Unsigned(1), "uint8"),
        (1.0, "float64"),
        (1j, "complex128"),
        ({}, "map[string]interface {}"),
        ([], "[]interface {}"),
        (b"", "[]uint8"),
        (Struct(LOUD), "api.Loud"),
        (Pointer(None, "api.Call"), "*api.Call"),
        (Slice(STRINGS, []), "[]string"),
        (MISSING, "interface {}"),
    ],
)
def test_names_of_types(value, name):
    assert type_name(value) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Struct(CALL, "a", 0, Boxed(None)), '{"name":"a","any":null}'),
        (Struct(CALL, "<", 2, Boxed({"b": 1.0, "a": [True]})), '{"name":"\\u003c","index":2,"any":{"a":[true],"b":1}}'),
        (Pointer(Struct(LOUD), "api.Loud"), '"loud"'),
        (Pointer(None, "api.Loud"), "null"),
        (Slice(STRINGS, None), "null"),
        (Slice(STRINGS, []), "[]"),
        (Map(ANY_MAP, None), "null"),
        (Map(ANY_MAP, {"b": 1, "a": 2}), '{"a":2,"b":1}'),
        (b"\xff\x00", '"/wA="'),
        ((1, "x", None), '[1,"x",null]'),
        (MISSING, "null"),
    ],
)
def test_json_has_structs_in_their_order_and_maps_sorted(value, text):
    assert to_json(value) == text


def test_a_number_that_json_lacks_is_an_error():
    with pytest.raises(ValueError, match=r"^json: unsupported value: "):
        to_json([float("nan")])


def test_an_interface_gives_what_it_holds_and_no_value_for_nil():
    assert unbox(Boxed(3)) == 3
    assert unbox(Boxed(None)) is MISSING
    assert unbox(None) is MISSING


def test_a_pointer_has_the_methods_of_its_struct():
    assert set(methods(Pointer(Struct(LOUD), "api.Loud"))) == {"MarshalJSON", "String"}
    assert methods(Pointer(None, "api.Loud")) == {}
    assert methods("text") == {}


def test_elements_and_entries_tell_slices_from_maps():
    assert elements([1]) == ([1], True)
    assert elements(Slice(STRINGS, ["a"])) == (["a"], False)
    assert elements("text") is None
    assert [type(byte) for byte in elements(b"ab")[0]] == [Unsigned, Unsigned]
    assert entries({"a": 1}) == ({"a": 1}, ANY_MAP)
    assert entries(Map(STRINGS, None)) == ({}, STRINGS)
    assert entries([1]) is None


def test_a_struct_needs_a_value_for_each_field():
    with pytest.raises(ValueError, match="zip"):
        Struct(CALL, "a")
