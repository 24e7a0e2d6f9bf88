"""The answers of the model `stub`, and reading what programs print."""

import json

GREETING = "Hello! One two three four five."
"""The answer when no tool is called."""
TOKENS = 6
REPORT = "The tool says: "


def lines(output):
    """Read one JSON value per line."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def check_chat(found):
    """Check a chat and a stream that a script for a framework found."""
    assert (found["chat"], found["tokens"]) == (GREETING, TOKENS)
    assert "".join(found["deltas"]) == GREETING
    assert len([delta for delta in found["deltas"] if delta]) == TOKENS


def check_loop(found, desk):
    """Check that the framework ran the tool `read_note` once and gave its result to the model."""
    assert found["ran"] == [str(desk.note)]
    assert found["loop"].startswith(REPORT)
    assert desk.secret in found["loop"]
