"""Detecting what a model can do from the words in its Jinja chat template, as Ollama does."""

import re
from typing import Final

_ROLE_IS_TOOL: Final = re.compile(r"""role['"]\] == ['"]tool['"]""")


def has_tools(text: str) -> bool:
    """Return whether the template supports tools."""
    return "tools" in text or "tool_call" in text


def has_thinking(text: str) -> bool:
    """Return whether the template supports thinking."""
    if "<think>" in text and "</think>" in text:
        return True
    # A template that cuts thoughts from earlier answers belongs to a model that thinks, even if it shows no markers.
    splits = "content.split('</think>')" in text or 'content.split("</think>")' in text
    return splits and "reasoning_content" not in text and "<SPECIAL_12>" not in text


def has_tool_round_trip(text: str) -> bool:
    """Return whether the template renders both tool calls and their results."""
    if not has_tools(text) or ("tool_calls" not in text and "assistant_tool_call" not in text):
        return False
    if any(word in text for word in ("tool_response", "tool_results", "ipython", "message.role == 'tool'")):
        return True
    return _ROLE_IS_TOOL.search(text) is not None


def capabilities(text: str) -> tuple[str, ...]:
    """Return those of "tools" and "thinking" that the template supports."""
    found = (("tools", has_tools(text)), ("thinking", has_thinking(text)))
    return tuple(name for name, there in found if there)
