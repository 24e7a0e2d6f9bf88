import re

import pytest

from puna.backend import InvalidRequestError
from puna_llama_cpp.structured_output.patterns import rewrite_pattern


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("^((a{1,50}){1,50}){1,50}$", ["^((a{1,125000}))$"]),
        ("(a{2}){0,3}", ["(a{2}){0,3}"]),
        ("(a{2,3}){2}", ["(a{4,6})"]),
        ("((a?){3})+", ["((a*))"]),
        ("^(a{1,300}b?){1,300}$", ["^(a{1,300}b?){1,6}$"]),
        ("^(?=.{1,9}$)a*(?:b|c)?$", ["^(?:.{1,9}$)", "^a*(?:b|c)?$"]),
        (r"[)](\)|b)*?x{2,}\p{L}", [r"[)](\)|b)*?x{2,}\p{L}"]),
        ("(a", ["(a"]),
    ],
)
def test_patterns_stay_small(pattern, found):
    assert rewrite_pattern(pattern) == found


@pytest.mark.parametrize("pattern", [r"\x07", r"[\x00-\x1f]", "a\x01b", r"\cA"])
def test_control_characters_are_refused(pattern):
    with pytest.raises(InvalidRequestError, match="control character"):
        rewrite_pattern(pattern)


def test_a_class_of_all_but_some_has_no_control_characters():
    [pattern] = rewrite_pattern("^[^a]+$")
    assert re.fullmatch(pattern, "b c")
    assert not re.fullmatch(pattern, "b\nc")


def test_a_duration_of_zod_is_known_without_its_look_around():
    zod = r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"
    [pattern] = rewrite_pattern(zod)
    assert "(?" not in pattern
    for text in ("P1W", "P1Y2M", "PT5S", "P1DT2H", "P", "PT", "P1YT", "P2W1D"):
        assert bool(re.search(pattern, text)) == bool(re.search(zod, text)), text
