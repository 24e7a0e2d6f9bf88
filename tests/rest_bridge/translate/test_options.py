import json

import pytest
from tests.rest_bridge.decoding import decoded

from puna_client.v1 import options_pb2
from puna_rest.bodies import native
from puna_rest.translate import options

START = 1_700_000_000_123_456_789


def of(body):
    return options.request_options(*decoded(native.CHAT, body), START)


def test_an_empty_body_asks_for_the_defaults():
    found = of({})
    assert found.truncate
    assert not found.HasField("shift")
    assert not found.HasField("constraint")
    assert not found.HasField("keep_alive")
    assert found.options_json == ""
    assert found.thinking == options_pb2.THINKING_LEVEL_UNSPECIFIED
    assert found.start_time.ToNanoseconds() == START


@pytest.mark.parametrize(("given", "truncate"), [(True, True), (False, False), (None, True)])
def test_only_false_forbids_to_truncate(given, truncate):
    assert of({"truncate": given}).truncate is truncate


@pytest.mark.parametrize("shift", [True, False])
def test_shift_is_passed_on_if_given(shift):
    found = of({"shift": shift})
    assert found.HasField("shift")
    assert found.shift is shift


@pytest.mark.parametrize(
    ("raw", "which", "value"),
    [
        ('"json"', "json_object", True),
        ('{"type": "object"}', "json_schema", '{"type": "object"}'),
        ('"xml"', "json_schema", '"xml"'),
        ("null", None, None),
        ('""', None, None),
    ],
)
def test_format(raw, which, value):
    found = of(f'{{"format": {raw}}}')
    assert found.constraint.WhichOneof("kind") == which
    if which:
        assert getattr(found.constraint, which) == value


@pytest.mark.parametrize(
    ("given", "level"),
    [(True, "ON"), (False, "OFF"), ("low", "LOW"), ("medium", "MEDIUM"), ("high", "HIGH"), ("max", "MAX")],
)
def test_think(given, level):
    assert of({"think": given}).thinking == options_pb2.ThinkingLevel.Value(f"THINKING_LEVEL_{level}")


@pytest.mark.parametrize(
    ("given", "nanoseconds"),
    [
        (5, 5 * 10**9),
        (0, 0),
        ("1m30s", 90 * 10**9),
        ("1ns", 1),
        (-1, None),
        ("-5m", None),
        ("-1", None),
        (0.5, 5 * 10**8),
    ],
)
def test_keep_alive(given, nanoseconds):
    found = of({"keep_alive": given}).keep_alive
    if nanoseconds is None:
        assert found.forever
    else:
        assert found.duration.ToNanoseconds() == nanoseconds
        assert not found.forever


def test_options_keep_their_numbers_as_they_are_written():
    text = of('{"options": {"seed": 12345678901234567890, "temperature": 1.50, "stop": ["a"]}}').options_json
    assert text == '{"seed":12345678901234567890,"temperature":1.50,"stop":["a"]}'


def test_a_repeated_key_extends_the_options():
    text = of('{"options": {"a": 1}, "options": {"b": 2, "a": 3}}').options_json
    assert json.loads(text) == {"a": 3, "b": 2}


def test_log_probabilities_beyond_an_int32_are_clamped():
    found = of({"logprobs": True, "top_logprobs": 10**12})
    assert (found.logprobs, found.top_logprobs) == (True, 2**31 - 1)
