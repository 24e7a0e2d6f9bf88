import pytest

from puna.go.json_scanner import parse
from puna_rest.gobody import kinds
from puna_rest.gobody.decoder import AbortError, unmarshal
from puna_rest.gobody.kinds import (
    AnyMap,
    Anything,
    Bool,
    Bytes,
    Custom,
    Float,
    Inner,
    Int,
    Later,
    Pointer,
    Raw,
    Slice,
    String,
    StringMap,
    Struct,
)

PAIR = Struct("api.Pair", {"a": Int(), "B": String()})


def decoded(kind, text):
    document = parse(text.encode())
    return unmarshal(document, document.root, kind)


def refusal(kind, text):
    with pytest.raises(AbortError) as caught:
        decoded(kind, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (String(), '"a"', "a"),
        (String(), "null", ""),
        (Bool(), "true", True),
        (Bool(), "null", False),
        (Int(), "-9223372036854775808", -(2**63)),
        (Int(), "null", 0),
        (Float(), "1e3", 1000.0),
        (Float(32), "3.4e38", 3.4e38),
        (StringMap(), '{"a": "b", "c": null}', {"a": "b", "c": ""}),
        (StringMap(), "null", None),
        (Raw(), '{"a": 1.0}', '{"a": 1.0}'),
        (Raw(), "null", "null"),
        (Bytes("api.ImageData"), '"aGk="', b"hi"),
        (Bytes("api.ImageData"), '"aG\\nk="', b"hi"),
        (Bytes("api.ImageData"), "[104, 105, null]", b"hi\x00"),
        (Bytes("api.ImageData"), "null", b""),
        (Pointer(Int()), "null", None),
        (Pointer(Int()), "0", 0),
        (Slice(Int()), "null", None),
        (Slice(Int()), "[]", []),
        (Slice(Int()), "[1, null]", [1, 0]),
        (Anything(), "null", None),
        (AnyMap(), "null", None),
        (PAIR, '{"a": 1, "b": "x", "unknown": []}', {"a": 1, "B": "x"}),
        (PAIR, '{"a": 1, "A": 2}', {"a": 2, "B": ""}),
        (PAIR, '{"a": 1, "a": null}', {"a": 1, "B": ""}),
        (Later("api.Pair", lambda: PAIR), '{"a": 1}', {"a": 1, "B": ""}),
        (Custom("api.Own", lambda document, node: document.raw(node)), "[1]", "[1]"),
    ],
)
def test_values(kind, text, value):
    assert decoded(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        (String(), "3", "json: cannot unmarshal number into Go value of type string"),
        (Bool(), '"a"', "json: cannot unmarshal string into Go value of type bool"),
        (Int(), "1.5", "json: cannot unmarshal number 1.5 into Go value of type int"),
        (Int(), "1e2", "json: cannot unmarshal number 1e2 into Go value of type int"),
        (Int(), str(2**63), f"json: cannot unmarshal number {2**63} into Go value of type int"),
        (Float(), "1e400", "json: cannot unmarshal number 1e400 into Go value of type float64"),
        (Float(32), "3.5e38", "json: cannot unmarshal number 3.5e38 into Go value of type float32"),
        (AnyMap(), "[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (AnyMap(), '{"a": [1e400]}', "json: cannot unmarshal number 1e400 into Go value of type float64"),
        (Anything(), '[{"a": 1e999}]', "json: cannot unmarshal number 1e999 into Go value of type float64"),
        (StringMap(), '{"a": 1}', "json: cannot unmarshal number into Go value of type string"),
        (Bytes("api.ImageData"), "3", "json: cannot unmarshal number into Go value of type api.ImageData"),
        (Bytes("api.ImageData"), "[256]", "json: cannot unmarshal number 256 into Go value of type uint8"),
        (Slice(String()), "{}", "json: cannot unmarshal object into Go value of type []string"),
        (PAIR, "[]", "json: cannot unmarshal array into Go value of type api.Pair"),
        (PAIR, '{"a": "x"}', "json: cannot unmarshal string into Go struct field Pair.a of type int"),
        (
            Struct("api.Outer", {"list": Slice(PAIR)}),
            '{"list": [{"B": true}]}',
            "json: cannot unmarshal bool into Go struct field Pair.list.B of type string",
        ),
    ],
)
def test_mismatches_name_the_go_type(kind, text, error):
    assert refusal(kind, text) == error


def test_the_first_mismatch_is_told_even_if_others_follow():
    assert "string into Go struct field Pair.a" in refusal(PAIR, '{"a": "x", "B": 3}')


def test_the_error_of_an_inner_unmarshal_ends_the_decoding():
    outer = Struct("api.Outer", {"first": Int(), "second": Inner(PAIR, go="api.Inner")})
    assert refusal(outer, '{"first": "x", "second": {"a": "y"}}') != refusal(outer, '{"first": "x"}')


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        *[("a", 0), ("ab", 0), ("abc", 0), ("????", 0), ("ab?=", 2), ("abcd?", 4), ("abcde", 4)],
        *[("ab=", 3), ("ab=c", 2), ("a===", 1), ("abcd=", 4), ("ab==x", 4), ("abc=abcd", 4)],
    ],
)
def test_base64_errors_name_the_byte_that_go_names(text, offset):
    with pytest.raises(ValueError, match=f"^illegal base64 data at input byte {offset}$"):
        kinds.decode_base64(text)


@pytest.mark.parametrize(("text", "data"), [("", b""), ("aGk=", b"hi"), ("a\nG\r\nk=\n", b"hi"), ("aGlq", b"hij")])
def test_base64(text, data):
    assert kinds.decode_base64(text) == data


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Model", "mODEL", True),
        ("\u212aeep", "keep", True),
        ("\u017ftop", "STOP", True),
        ("é", "É", False),
        ("a", "b", False),
    ],
)
def test_names_fold_as_in_go(first, second, same):
    assert (kinds.fold(first) == kinds.fold(second)) is same


def test_an_exact_name_wins_over_one_that_differs_in_case():
    both = Struct("api.Both", {"name": String(), "Name": String()})
    assert decoded(both, '{"Name": "x", "name": "y"}') == {"name": "y", "Name": "x"}


def test_plain_values_have_floats_and_the_last_of_repeated_keys():
    document = parse(b'{"a": [1, true, null, "x"], "a": 2}')
    assert kinds.plain(document, document.root) == {"a": 2.0}
    assert kinds.plain(document, None) is None


def test_a_repeated_map_extends_the_earlier_one():
    kind = Struct("api.Holder", {"options": AnyMap()})
    merged = decoded(kind, '{"options": {"a": 1}, "options": {"b": 2}, "options": {"a": 3}}')["options"]
    assert [key for key, _ in merged.value] == ["a", "b", "a"]


def test_an_anonymous_struct_is_described_as_in_go():
    assert kinds.anonymous(role="string", n="int") == 'struct { Role string "json:\\"role\\""; N int "json:\\"n\\"" }'
