import json
import operator
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.go import json as gojson


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (5e5, "500000"),
        (1e-5, "0.00001"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (-0.0, "-0"),
        (123456789.125, "123456789.125"),
        (gojson.Float32(struct.unpack("<f", struct.pack("<f", 0.1))[0]), "0.1"),
        (gojson.Float32(struct.unpack("<f", struct.pack("<f", 1e-5))[0]), "0.00001"),
    ],
)
def test_numbers_have_go_s_form(value, text):
    assert gojson.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4096.0, "4096"),
        (999999.0, "999999"),
        (1e6, "1e+06"),
        (1048576.0, "1.048576e+06"),
        (123456789.0, "1.23456789e+08"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (0.7, "0.7"),
        (-1.0, "-1"),
    ],
)
def test_percent_v(value, text):
    assert gojson.percent_v(value) == text


def test_strings_are_safe_in_html_and_in_lines():
    assert gojson.string("<b>&\u2028\u2029\x7f\x01\n\"\\é'/") == (
        '"\\u003cb\\u003e\\u0026\\u2028\\u2029\x7f\\u0001\\n\\"\\\\é\'/"'
    )


def test_a_lone_surrogate_becomes_the_replacement_character():
    assert gojson.string("a\ud800b") == '"a\ufffdb"'


def test_order_is_kept_or_sorted():
    value = {"b": [1, None, True], "a": {"z": "", "y": gojson.Raw('{"k": 1}')}}
    assert gojson.dumps(value) == '{"b":[1,null,true],"a":{"z":"","y":{"k": 1}}}'
    assert gojson.dumps(value, sort_keys=True) == '{"a":{"y":{"k": 1},"z":""},"b":[1,null,true]}'


def test_quote_is_go_s():
    assert gojson.quote('a"b\\\n\t\x00\x7fé\u200d') == '"a\\"b\\\\\\n\\t\\x00\\x7fé\\u200d"'


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_double_comes_back(value):
    assert float(gojson.number(value)) == value
    assert float(gojson.percent_v(value)) == value


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_any_32_bit_float_comes_back_with_at_most_nine_digits(value):
    text = gojson.number(gojson.Float32(value))
    assert struct.pack("<f", float(text)) == struct.pack("<f", value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    )
)
def test_any_value_reads_back(value):
    assert json.loads(gojson.dumps(value)) == value


# Texts that Go's encoding/json writes for a float32 with these bits.
FLOATS32 = {
    0x39800000: "0.00024414063",  # two texts are equally near: the larger
    0x0F800000: "1.2621775e-29",  # a shorter text above than below
    0x6B000000: "1.5474251e+26",
    0x6C800000: "1.2379401e+27",
    0x358637BD: "0.000001",  # 1e-6 is rounded to 32 bits before it is compared
    0x358637BC: "9.999999e-7",
    0x6258D727: "1e+21",
    0x6258D726: "999999950000000000000",
    0x00008108: "4.6288e-41",
    0x00000001: "1e-45",
    0x80000000: "-0",
    0x00000000: "0",
    0x3F800000: "1",
    0x3D4CCCCD: "0.05",
    0xBE99999A: "-0.3",
    0x7F7FFFFF: "3.4028235e+38",
    0x4B189680: "10000000",
}


@pytest.mark.parametrize("with_numpy", [True, False])
def test_arrays_of_floats_have_go_digits(with_numpy, monkeypatch):
    if not with_numpy:
        monkeypatch.setattr(gojson, "_fast_floats", lambda: None)
    packed = struct.pack(f"<{len(FLOATS32)}I", *FLOATS32)
    assert gojson.floats32(packed) == "[" + ",".join(FLOATS32.values()) + "]"
    assert gojson.floats32(b"") == "[]"
    with pytest.raises(ValueError, match="unsupported value"):
        gojson.floats32(struct.pack("<f", float("nan")))


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SMALL = st.floats(2.0**-23, 2.0**-9, width=32)
"""Usual among the numbers of a vector. Below 1e-6 Go writes an exponent."""


@given(st.lists(FLOATS | SMALL | SMALL.map(operator.neg)))
def test_fast_and_slow_digits_are_the_same(values):
    packed = struct.pack(f"<{len(values)}f", *values)
    assert gojson.floats32(packed) == gojson.dumps([gojson.Float32(each) for each in values])


@given(st.text(), st.integers(1, 5))
def test_long_strings_are_encoded_as_short_ones(text, length):
    with pytest.MonkeyPatch.context() as patch:
        whole = gojson.string(text)
        patch.setattr(gojson, "LONG", length)
        assert gojson.string(text) == whole


def test_quoting_cuts_what_is_long():
    quoted = gojson.quote("a\n" * gojson.QUOTED)
    assert quoted.startswith('"a\\na\\n')
    assert quoted.endswith('…"')
    assert len(quoted) < 2 * gojson.QUOTED
