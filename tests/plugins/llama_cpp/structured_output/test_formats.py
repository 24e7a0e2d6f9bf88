import json
import re

import pytest
from tests.plugins.llama_cpp.random_walk import accepts

from puna_llama_cpp.structured_output.formats import format_pattern, replace_format


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("uuid4", "18afc9fb-a494-4bd4-82fa-b3bdade6bfea", "18afc9fb-a494-1bd4-82fa-b3bdade6bfea"),
        ("base64", "Zm9vYg==", "Zm9vYg"),
        ("base64url", "_-8=", "+/8="),
        ("ulid", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "91ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("e164", "+4915112345678", "015112345678"),
        ("ipv4network", "10.1.2.0/24", "10.1.2.3/24"),
        ("ipv4interface", "10.1.2.3/24", "10.1.2.3/33"),
        ("cidrv6", "2001:db8::/32", "2001:db8::/129"),
        ("json-pointer", "/a/b~1c", "a"),
        ("mac", "00:1b:44:11:3a:b7", "00:1b:44:11:3a"),
    ],
)
def test_more_formats_are_known(form, right, wrong):
    assert re.search(format_pattern(form), right)
    assert not re.search(format_pattern(form), wrong)
    assert accepts({"type": "string", "format": form}, json.dumps(right))


def test_a_known_format_is_left_and_an_unknown_one_says_nothing():
    known, unknown = {"format": "date"}, {"format": "favourite-color"}
    replace_format(known)
    replace_format(unknown)
    assert (known, unknown) == ({"format": "date"}, {})


def test_a_format_that_contains_a_known_one_is_that():
    schema = {"format": "ipvanyaddress"}
    replace_format(schema)
    assert schema == {"format": "ipv4"}


def test_a_pattern_of_a_format_joins_what_must_hold_already():
    schema = {"format": "mac", "allOf": [{"maxLength": 17}]}
    replace_format(schema)
    assert schema["allOf"][0] == {"maxLength": 17}
    assert re.search(schema["allOf"][1]["pattern"], "00:1b:44:11:3a:b7")
