"""Calls of the API beside the browser."""

import json
import urllib.request


def call(server, method, body):
    """Call a unary method by Connect; return its answer. Fields that have their default are left out."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/puna.v1.{method}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())
