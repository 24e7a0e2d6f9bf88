"""Format text: what the prompt format of Laguna prescribes word for word.

The models were trained on prompts with these words. Names in braces are filled in.
"""

from typing import Final

DEFAULT_SYSTEM: Final = (
    "You are a helpful, conversationally-fluent assistant made by Poolside. You are here to be helpful to users "
    "through natural language conversations."
)
"""The system message of a conversation without one."""
TOOLS: Final = """

### Tools

You may call functions to assist with the user query.
All available function signatures are listed below:
<available_tools>
{signatures}
</available_tools>"""
"""The list of tools."""
THINKING_INSTRUCTIONS: Final = "Wrap your thinking in '<think>', '</think>' tags, followed by a function call. "
"""The beginning of CALL_INSTRUCTIONS where the model is to think."""
CALL_INSTRUCTIONS: Final = (
    "\n\n{thinking}For each function call, return an unescaped XML-like object with function name and arguments within "
    "'<tool_call>' and '</tool_call>' tags, like here:\n{thoughts}<tool_call>function-name\n"
    "<arg_key>argument-key</arg_key>\n<arg_value>value-of-argument-key</arg_value>\n</tool_call>"
)
"""How to write a call. It follows TOOLS."""
