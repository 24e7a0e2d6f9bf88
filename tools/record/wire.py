"""tests/rest_bridge/wire.json: status, headers and bodies, byte by byte.

The server must have an empty store and `OLLAMA_NO_CLOUD=1`. Requests go over a bare socket, since `http.client` would
set headers of its own. Date and Connection are left out.
"""

import socket
from typing import Any

from tools.record.client import Server

KEPT = {"/api/experimental/model-recommendations"}
"""Paths to which Puna answers otherwise on purpose (rest_bridge/README.md): the fixture keeps what it holds."""


def record(server: Server, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send each request again."""
    return [case if case["request"].split()[1] in KEPT else {**case, **_exchange(server, case)} for case in recorded]


def _exchange(server: Server, case: dict[str, Any]) -> dict[str, Any]:
    head = [f"{case['request']} HTTP/1.1", f"Host: {case['host']}", *case["headers"], "Connection: close", "", ""]
    with socket.create_connection((server.host, server.port), 30) as connection:
        connection.sendall("\r\n".join(head).encode("latin1"))
        data = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    top, _, body = data.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin1").split("\r\n")
    kept = sorted(line for line in lines if not line.startswith(("Date:", "Connection:")))
    return {"status": int(status.split()[1]), "answer": kept, "body": body.decode()}
