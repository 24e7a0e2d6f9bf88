"""Web searches that a model calls for. Ollama runs them in its cloud; here they fail."""

import json
from typing import Final

from puna_client.v1 import message_pb2
from puna_rest.errors import RestError

NAME: Final = "web_search"
"""Name of the tool that the model sees."""
TOOL: Final = message_pb2.Tool(
    type="function",
    name=NAME,
    description="Finds web pages on a subject. Needed for facts that are newer than the training data.",
    parameters_json=(
        '{"type":"object","required":["query"],'
        '"properties":{"query":{"type":"string","description":"Words that the pages should contain"}}}'
    ),
)
"""The tool that the model sees in place of the built-in search."""
REFUSED: Final = "ollama cloud is disabled: web search is unavailable"

NO_QUERY: Final = "web_search requires a non-empty string query"


def asked_for(calls: tuple[message_pb2.ToolCall, ...]) -> message_pb2.ToolCall | None:
    """Return the first call of the search tool, or None."""
    return next((call for call in calls if call.name == NAME), None)


def refuse(calls: tuple[message_pb2.ToolCall, ...]) -> None:
    """Raise RestError if the model calls for a search."""
    if (call := asked_for(calls)) is not None:
        if not query_of(call):
            raise RestError(502, NO_QUERY, reason="SEARCH_FAILED")
        raise RestError(403, REFUSED, reason="CLOUD_DISABLED")


def query_of(call: message_pb2.ToolCall) -> str:
    """Return the query; empty if the model gave none or not a text."""
    try:
        arguments = json.loads(call.arguments_json)
    except (ValueError, RecursionError):
        return ""
    query = arguments.get("query") if isinstance(arguments, dict) else None
    return query if isinstance(query, str) else ""
