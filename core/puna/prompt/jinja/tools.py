"""Tools as chat templates see them: the fields that Ollama keeps, since Ollama passes its own structures on to
llama.cpp. puna.prompt.tool_schema knows the fields and their order.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from puna.errors import ToolsRefusedError
from puna.messages import Tool
from puna.prompt import tool_schema

FUNCTION: Final = "function"


def tool_objects(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return tools as a template takes them: every function has a description, which may be empty.

    Raises ToolsRefusedError for a type other than "function", ValueError for parameters that are not JSON.
    """
    # llama.cpp checks all types before it reads any parameters.
    if any(tool.type != FUNCTION for tool in tools):
        raise ToolsRefusedError(_refusal(tools))
    return [
        {
            "type": FUNCTION,
            "function": {"name": tool.name, "description": tool.description, "parameters": _parameters(tool)},
        }
        for tool in tools
    ]


def _parameters(tool: Tool) -> tool_schema.JSON:
    return tool_schema.as_printed(tool_schema.parameters(tool_schema.parsed(tool.parameters)))


def _refusal(tools: Sequence[Tool]) -> str:
    """Return llama.cpp's error: it shows the first tool with another type, then all tools as Ollama sends them."""
    sent = [tool_schema.as_printed(tool_schema.reduced(tool)) for tool in tools]
    first = next(each for each in sent if each["type"] != FUNCTION)
    compact = json.dumps(first, ensure_ascii=False, separators=(",", ":"))
    pretty = json.dumps(sent, ensure_ascii=False, indent=2)
    return f"Failed to parse tools: Unsupported tool type: {compact}; tools = {pretty}"
