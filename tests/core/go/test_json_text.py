import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.go import json as gojson
from puna.go import json_text

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_honest_json_is_read_as_ever(value):
    assert json_text.loads(json.dumps(value)) == value
    assert json_text.loads(json.dumps(value, ensure_ascii=False).encode()) == value


def test_depth_counts_levels_outside_strings():
    level = json_text.DEEPEST
    json_text.loads("[" * level + "]" * level)
    json_text.loads("[" + '"[[[{{{\\"[[["' + ",[],{}" * 1000 + "]")
    for opening, closing in (("[", "]"), ('{"a":', "}"), ('[{"]":', "}]")):
        with pytest.raises(ValueError, match="nested deeper than 200 levels"):
            json_text.loads(opening * (level + 1) + "1" + closing * (level + 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        "9" * 309,
        "9" * 100_000,
        "\ufeff{}",
        "[" * 10**6,
        '{"a":' * 10**6,
    ],
)
def test_the_rest_is_a_value_error(text):
    for given_text in (text, text.encode()):
        with pytest.raises(ValueError, match=r"."):
            json_text.loads(given_text)


def test_bytes_that_are_no_text_are_replaced():
    assert json_text.loads(b'"a\xff"') == "a\ufffd"
    assert gojson.replace_lone_surrogates("a\ud800b") == "a\ufffdb"


@pytest.mark.parametrize(
    ("value", "kept"), [(5, 5), (2**63 - 1, 2**63 - 1), (2**63, 0), (-1, 0), (True, 0), (1.0, 0), ("7", 0)]
)
def test_counts_are_whole_and_fit(value, kept):
    assert json_text.int64(value) == kept


@given(
    st.recursive(
        st.text(st.sampled_from('a\\"\n\ud83d\ude00\ud800\U0001f600')),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from("k\\\ud800\udc00")), inner, max_size=1),
    ),
    st.booleans(),
)
def test_repaired_text_has_no_halves_and_is_else_the_same(value, upper):
    text = json.dumps(value)
    if upper:
        text = re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda match: match[0].upper(), text)

    def wholes(each):
        if isinstance(each, dict):
            return {gojson.replace_lone_surrogates(key): wholes(item) for key, item in each.items()}
        return list(map(wholes, each)) if isinstance(each, list) else gojson.replace_lone_surrogates(each)

    assert json.loads(json_text.repaired(text)) == wholes(json.loads(text))


@pytest.mark.parametrize("text", ["", "x", r"\\ud800", r'"\ud83d\ude00"', "{", r"\ud8", r"\u12"])
def test_other_text_is_not_touched(text):
    assert json_text.repaired(text) == text
