import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna_llama_cpp.structured_output.numbers import enumerate_multiples


def enumerated(schema):
    enumerate_multiples(schema)
    return schema


def test_a_small_divisor_is_left_to_the_automaton():
    schema = {"type": "integer", "multipleOf": 1000, "minimum": 5}
    assert enumerated(dict(schema)) == schema


def test_bounds_choose_the_multiples():
    assert enumerated({"type": "integer", "multipleOf": 5000, "exclusiveMinimum": 5000, "maximum": 20000}) == {
        "enum": [10000, 15000, 20000]
    }


def test_other_types_stay_allowed():
    assert enumerated({"type": ["integer", "null"], "multipleOf": 5000, "minimum": 0, "maximum": 5000}) == {
        "type": ["integer", "null"],
        "allOf": [{"anyOf": [{"enum": [0, 5000]}, {"type": ["null"]}]}],
    }


def test_integers_among_fractions_are_chosen():
    assert enumerated({"type": "integer", "multipleOf": 2048.5, "minimum": 0, "maximum": 8194}) == {
        "enum": [0, 4097, 8194]
    }


@given(st.integers(1001, 10**9), st.integers(-(10**12), 10**12), st.integers(0, 10**12))
def test_a_list_is_exact_and_never_too_long(divisor, least, width):
    schema = enumerated({"type": "integer", "multipleOf": divisor, "minimum": least, "maximum": least + width})
    values = schema["enum"]
    assert all(value % divisor == 0 and least <= value <= least + width for value in values)
    assert values == sorted(set(values))
    assert len(values) == min(len(values), 20_001)
    if (least + width) // divisor - -(-least // divisor) < 20_000:
        assert len(values) == (least + width) // divisor - -(-least // divisor) + 1


@pytest.mark.parametrize("divisor", [0, True, "5000", None])
def test_what_is_no_divisor_is_left(divisor):
    assert enumerated({"multipleOf": divisor}) == {"multipleOf": divisor}
