"""Format text: what the prompt format of Qwen3-Coder prescribes word for word.

Qwen3.5 and Nemotron 3 have the same instructions for calls. The models were trained on prompts with these words, which
come from the chat template that Qwen publishes with the models.
"""

from typing import Final

DEFAULT_SYSTEM: Final = "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks."
"""The system message of a conversation with tools and without one of its own."""
TOOLS: Final = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
"""The heading of the list of tools."""
CALL_INSTRUCTIONS: Final = """If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within \
<tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell \
the user about function calls
</IMPORTANT>"""
"""How to write a call. It follows the list of tools."""
