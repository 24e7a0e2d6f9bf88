import pytest
from tests.core.prompt.builtin.reading import TOOLS

from puna.prompt.builtin.notation.gemma4_call import read_call


@pytest.mark.parametrize(
    "raw",
    [
        'call:get{city:<|"|>Oslo<|"|>,days:2}',
        'call: get {city:<|"|>Oslo<|"|>, days:2} \n',
        "call:get{city:'Oslo',days:2}",
        'call:get{days:2,city:<|"|>Oslo}',
        "call:get{city:Oslo,days:2}",
        "call:get{days:2,city:Oslo",
    ],
)
def test_broken_strings_are_mended(raw: str) -> None:
    name, arguments = read_call(raw, TOOLS) or ("", {})
    assert (name, sorted(arguments.items())) == ("get", [("city", "Oslo"), ("days", 2.0)])


@pytest.mark.parametrize("raw", ["get{}", "call:get", "call:get{days:two}", "call:put{city:Oslo}"])
def test_other_texts_are_no_calls(raw: str) -> None:
    assert read_call(raw, TOOLS) is None


def test_quotes_and_keys_of_json_may_stand_in_a_string() -> None:
    assert read_call('call:get{city:<|"|>a "b", {c:1}<|"|>}', TOOLS) == ("get", {"city": 'a "b", {c:1}'})
