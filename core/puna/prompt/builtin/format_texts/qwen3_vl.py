"""Format text: what the prompt format of Qwen3-VL prescribes word for word.

The words are those of Qwen3. The models were trained on prompts with these words, which come from the chat template
that Qwen publishes with the models. `{signatures}` is filled in.
"""

from typing import Final

TOOLS: Final = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{signatures}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
"""The list of tools with the instructions for calls."""
