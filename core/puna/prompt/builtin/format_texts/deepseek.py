"""Format text: what the prompt format of DeepSeek-V3.1 and Cogito v2.1 prescribes word for word.

The models were trained on prompts with these tokens and words.
"""
# ruff: noqa: RUF001 - the full-width bars are part of the tokens

from typing import Final

BOS: Final = "<｜begin▁of▁sentence｜>"
EOS: Final = "<｜end▁of▁sentence｜>"
USER: Final = "<｜User｜>"
ASSISTANT: Final = "<｜Assistant｜>"
CALLS: Final = "<｜tool▁calls▁begin｜>"
END_OF_CALLS: Final = "<｜tool▁calls▁end｜>"
CALL: Final = "<｜tool▁call▁begin｜>"
END_OF_CALL: Final = "<｜tool▁call▁end｜>"
SEPARATOR: Final = "<｜tool▁sep｜>"
OUTPUT: Final = "<｜tool▁output▁begin｜>"
END_OF_OUTPUT: Final = "<｜tool▁output▁end｜>"
OUTPUTS: Final = "<｜tool▁outputs▁begin｜>"
END_OF_OUTPUTS: Final = "<｜tool▁outputs▁end｜>"
TOOLS: Final = "\n\n## Tools\nYou have access to the following tools:\n"
"""The heading of DeepSeek's list of tools."""
CALL_INSTRUCTIONS: Final = f"""
IMPORTANT: ALWAYS adhere to this exact format for tool use:
{CALLS}{CALL}tool_call_name{SEPARATOR}tool_call_arguments{END_OF_CALL}{{{{additional_tool_calls}}}}{END_OF_CALLS}

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
"""
"""How DeepSeek writes a call. It follows the list of tools."""
COGITO_SYSTEM: Final = (
    "You are Cogito, an AI assistant created by Deep Cogito, which is an AI research lab based in San Francisco."
)
"""The beginning of every system message of Cogito."""
COGITO_THINKING: Final = "Enable deep thinking subroutine.\n\n"
"""Makes Cogito think."""
COGITO_TOOLS: Final = "\nYou have the following functions available:\n"
"""The heading of Cogito's list of tools."""
