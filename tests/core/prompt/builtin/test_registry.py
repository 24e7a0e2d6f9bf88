import pytest

from puna.capabilities import PARSERS
from puna.errors import UnknownRendererError
from puna.prompt.builtin.registry import parser, renderer


def test_there_is_a_parser_for_every_name_of_which_capabilities_are_told() -> None:
    assert {name for name in PARSERS if parser(name) is None} == set()


def test_an_unknown_name_means_no_parser() -> None:
    assert parser("nope") is None


def test_every_call_makes_a_fresh_parser() -> None:
    first, second = parser("qwen3"), parser("qwen3")
    assert first is not None
    assert first is not second


def test_an_unknown_renderer_is_an_error() -> None:
    with pytest.raises(UnknownRendererError, match='unknown renderer "nope"'):
        renderer("nope")
