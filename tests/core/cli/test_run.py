import argparse

import pytest

from puna.cli.errors import CommandError
from puna.cli.run import begin


def arguments(**given):
    return argparse.Namespace(**{"model": "m", "format": "", "think": "", "keepalive": ""} | given)


@pytest.mark.parametrize(("keepalive", "nanoseconds"), [("", None), ("5m", 300 * 10**9), ("-1s", -(10**9)), ("0", 0)])
def test_the_options_of_the_command_are_those_of_the_conversation(keepalive, nanoseconds):
    conversation = begin(arguments(format="json", think="high", keepalive=keepalive))
    assert (conversation.model, conversation.format, conversation.think) == ("m", "json", "high")
    assert conversation.keep_alive_ns == nanoseconds


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"think": "hard"}, 'invalid value for --think: "hard" (must be true, false, high, medium, low, or max)'),
        ({"keepalive": "5"}, 'time: missing unit in duration "5"'),
    ],
)
def test_options_that_are_refused(given, text):
    with pytest.raises(CommandError) as caught:
        begin(arguments(**given))
    assert str(caught.value) == text
