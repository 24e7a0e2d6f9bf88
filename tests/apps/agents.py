"""What the tests of coding agents share."""

import json

GREETING = "Hello! One two three four five."
"""The answer of the model `stub` when it calls no tool."""
REPORT = "The tool says: "


def lines(output):
    """Read one JSON value per line."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]
