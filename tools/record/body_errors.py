"""tests/rest_bridge/gobody/go_errors.json: what a route says of a body that it cannot decode.

The server must have an empty store. A body that decodes has None in the fixture, whatever the server then says of the
request: an error counts as one of decoding by how its text begins.
"""

import json
from typing import Any

from tools.record.client import Server

DECODING = (
    "json: ", "invalid character", "unexpected ", "EOF", "missing request body", "time: ", "Unsupported type",
    "invalid think value", "think must be", "input must be a string", "input[", "Value looks like", "illegal base64",
)  # fmt: skip
METHODS = {"/api/delete": "DELETE"}


def record(server: Server, recorded: dict[str, list[list[str | None]]]) -> dict[str, Any]:
    """Send each body to its route again."""
    return {path: [[body, _error(server, path, body or "")] for body, _ in cases] for path, cases in recorded.items()}


def _error(server: Server, path: str, body: str) -> str | None:
    status, data = server.exchange(METHODS.get(path, "POST"), path, body.encode("utf-8", "surrogatepass"))
    if status != 400:
        return None
    error = json.loads(data).get("error")
    text = error.get("message", "") if isinstance(error, dict) else str(error)
    return text if text.startswith(DECODING) else None
