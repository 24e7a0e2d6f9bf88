"""Searches of the web that a model asks for: servers carry them out in the cloud, and there is none here."""

import json
from typing import Final

from puna.v1 import message_pb2

NAME: Final = "web_search"
"""Of the function that the model sees."""
REFUSED: Final = "ollama cloud is disabled: web search is unavailable"

NO_QUERY: Final = "web_search requires a non-empty string query"


def asked_for(calls: tuple[message_pb2.ToolCall, ...]) -> message_pb2.ToolCall | None:
    """Return the first call that searches."""
    return next((call for call in calls if call.name == NAME), None)


def query_of(call: message_pb2.ToolCall) -> str:
    """Return what is searched for; empty if the model did not say it as a text."""
    try:
        arguments = json.loads(call.arguments_json)
    except (ValueError, RecursionError):
        return ""
    query = arguments.get("query") if isinstance(arguments, dict) else None
    return query if isinstance(query, str) else ""
